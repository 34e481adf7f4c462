import { Button, Card, CardContent, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, Typography } from "@mui/material";
import type { Draft } from "./api";
import { useNodes } from "./hooks";
import { useStart } from "./start";
import { t } from "./texts";
import { rolesOf, when } from "./words";
import { Wrong } from "./wrong";

/** The machines of the inventory, and what the last look at each has found. */
export function Machines({ draft }: { draft: Draft }) {
  const nodes = useNodes();
  const detecting = useStart("detect");
  return (
    <Card variant="outlined" component="section" aria-labelledby="machines">
      <CardContent>
        <Stack direction="row" sx={{ alignItems: "center", gap: 2, flexWrap: "wrap", rowGap: 1 }}>
          <Typography variant="h2" id="machines" sx={{ flexGrow: 1 }}>
            {t.machines}
          </Typography>
          <Typography color="textSecondary">{nodes.data?.seen ? t.seen(when(nodes.data.seen)) : t.notSeen}</Typography>
          <Button variant="outlined" loading={detecting.isPending} onClick={() => detecting.mutate([])}>
            {nodes.data?.seen ? t.detectAgain : t.detect}
          </Button>
        </Stack>
        <Typography color="textSecondary" sx={{ mb: 1 }}>
          {t.detectNote}
        </Typography>
        <Wrong error={detecting.error} />
        <TableContainer tabIndex={0} aria-labelledby="machines">
          <Table>
            <TableHead>
              <TableRow>
                {[t.name, t.address, t.sshPort, t.roles, t.hardware].map((head) => (
                  <TableCell key={head}>{head}</TableCell>
                ))}
              </TableRow>
            </TableHead>
            <TableBody>
              {Object.entries(draft.nodes).map(([name, node]) => (
                <TableRow key={name}>
                  <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
                    {name}
                  </TableCell>
                  <TableCell>{node.address}</TableCell>
                  <TableCell>{node.port}</TableCell>
                  <TableCell>{rolesOf(node.groups)}</TableCell>
                  <TableCell>{nodes.data?.nodes[name]?.hardware ?? ""}</TableCell>
                </TableRow>
              ))}
            </TableBody>
          </Table>
        </TableContainer>
      </CardContent>
    </Card>
  );
}
