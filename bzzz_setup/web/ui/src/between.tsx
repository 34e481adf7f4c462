import { Alert, Box, Card, CardContent, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Ways } from "./api";
import { t } from "./texts";
import { Wrong } from "./wrong";

type Cell = Ways["layers"][number]["rows"][number]["cells"][number];

/** How each machine reaches each other, as a run has measured it: a map, and what stands out. */
export default function Between({ name }: { name: string }) {
  const asked = useQuery({ queryKey: ["ways", name], queryFn: () => api.ways(name), staleTime: Infinity });
  const [chosen, setChosen] = useState("");
  const ways = asked.data?.ways;
  if (!ways) return <Wrong error={asked.error} />;
  const layer = ways.layers.find((one) => one.name === chosen) ?? ways.layers[0];
  return (
    <Card variant="outlined" component="section" aria-labelledby="ways">
      <CardContent>
        <Typography variant="h2" id="ways" gutterBottom>
          {t.ways}
        </Typography>
        <Typography sx={{ mb: 2 }}>
          {ways.sentence} {ways.size > 1 && t.groupsOf(ways.size)}
        </Typography>
        {layer && (
          <>
            <TextField select size="small" label={t.waysLayer} value={layer.name} onChange={(event) => setChosen(event.target.value)} slotProps={{ select: { native: true } }} sx={{ mb: 1.500 }}>
              {ways.layers.map((one) => (
                <option key={one.name} value={one.name}>
                  {`${one.title}: ${one.same}`}
                </option>
              ))}
            </TextField>
            <TableContainer tabIndex={0} role="group" aria-labelledby="ways">
              <Table size="small" sx={{ width: "auto" }}>
                <TableHead>
                  <TableRow>
                    <TableCell>{t.fromTo}</TableCell>
                    {ways.labels.map((label) => (
                      <TableCell key={label} align="right">
                        {label}
                      </TableCell>
                    ))}
                  </TableRow>
                </TableHead>
                <TableBody>
                  {layer.rows.map((row) => (
                    <TableRow key={row.label}>
                      <TableCell component="th" scope="row" sx={{ fontWeight: 600, whiteSpace: "nowrap" }}>
                        {row.label}
                      </TableCell>
                      {row.cells.map((cell, place) => (
                        <TableCell key={ways.labels[place]} align="right" sx={coloured(cell)}>
                          {cell.text}
                        </TableCell>
                      ))}
                    </TableRow>
                  ))}
                </TableBody>
              </Table>
            </TableContainer>
          </>
        )}
        {ways.odd.length > 0 && (
          <Box role="group" aria-label={t.oddWays} sx={{ mt: 2 }}>
            {ways.odd.map((way) => (
              <Alert key={`${way.node} ${way.peer}`} severity={way.status === "fail" ? "error" : way.status === "warn" ? "warning" : "info"} sx={{ mb: 1 }}>
                <strong>
                  {way.node} → {way.peer}
                </strong>
                : {way.why}
              </Alert>
            ))}
            {ways.more > 0 && t.more(ways.more)}
          </Box>
        )}
      </CardContent>
    </Card>
  );
}

/** The slower, the more colour; faint enough to be read on. */
function coloured({ heat }: Cell) {
  if (heat === "gone") return { color: "error.main", fontWeight: 600 };
  return typeof heat === "number" ? { bgcolor: `color-mix(in srgb, var(--mui-palette-primary-main) ${heat * 6}%, transparent)` } : {};
}
