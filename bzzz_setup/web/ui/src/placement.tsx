import { Alert, Box, Button, LinearProgress, Stack, TableCell, TableRow, Typography } from "@mui/material";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, type Draft, type Fit } from "./api";
import { bytesOf, type Part, PARTS, type Row, rows, segments, size } from "./fit";
import { Picture, Rows, useFirst } from "./pictures";
import { t } from "./texts";
import { Wrong } from "./wrong";

const KEY = ["models-plan"];
// Of the same lightness in pairs, and in the same order in every bar.
const COLOUR: Record<Part, string> = { weights: "#3b7dd8", cache: "#b1487f", overhead: "#e08a1e", reserved: "url(#in-use)", free: "transparent" };

interface Asked {
  fit: Fit;
  /** Of what draft. */
  revision: number;
}

/** Which model would lie where, as `bzzz-setup models plan` works it out of what the machines tell. */
export default function Placement({ draft, flush }: { draft: Draft; flush: () => Promise<void> }) {
  const queries = useQueryClient();
  // What was told stays while somebody looks at other pages.
  const told = useQuery<Asked>({ queryKey: KEY, enabled: false, gcTime: Infinity });
  const asking = useMutation({
    mutationFn: async () => {
      await flush();
      const revision = queries.getQueryData<Draft>(["draft"])?.revision ?? 0;
      return { fit: await api.fit(), revision };
    },
    onSuccess: (found) => {
      queries.setQueryData(KEY, found);
      // The machines were looked at on the way.
      return queries.invalidateQueries({ queryKey: ["nodes"] });
    },
  });
  const wanted = Array.isArray(draft.options.models_wanted) && draft.options.models_wanted.length > 0;
  const found = asking.error ? undefined : told.data;
  return (
    <Picture id="fit" title={t.fit} note={t.fitNote}>
      <Stack direction="row" sx={{ gap: 1, alignItems: "center", flexWrap: "wrap" }}>
        <Button variant="outlined" loading={asking.isPending} disabled={!wanted} onClick={() => asking.mutate()}>
          {found ? t.showFitAgain : t.showFit}
        </Button>
        {!wanted && <Typography color="textSecondary">{t.nothingWanted}</Typography>}
        {wanted && found && found.revision !== draft.revision && !asking.isPending && <Typography color="textSecondary">{t.fitOlder}</Typography>}
      </Stack>
      <Box aria-live="polite">
        {asking.isPending && (
          <Box sx={{ mt: 1 }}>
            <Typography>{t.askingMachines}</Typography>
            <LinearProgress aria-label={t.askingMachines} />
          </Box>
        )}
        {!asking.isPending && <Wrong error={asking.error} />}
        {wanted && found && <Outcome fit={found.fit} />}
      </Box>
      {wanted && found && <Drawn fit={found.fit} />}
    </Picture>
  );
}

/** What came of it, and each that has no place, with why. */
function Outcome({ fit }: { fit: Fit }) {
  return (
    <Stack spacing={1} sx={{ mt: 1.5 }}>
      {fit.placed.length > 0 && <Alert severity="success">{t.allFits(fit.placed.length)}</Alert>}
      {fit.refused.length > 0 && (
        <Alert severity="error">
          {t.fitsNowhere(fit.refused.length)}
          {fit.refused.map((one) => (
            <div key={`${one.model} ${one.replica}`}>
              <strong>{t.nowhere(one.model, one.replica, one.node)}:</strong> {one.why} {one.remedy}
            </div>
          ))}
        </Alert>
      )}
      {fit.unknown.length > 0 && (
        <Alert severity="warning">
          {t.notPlanned(fit.unknown.length)}
          {fit.unknown.map((one) => (
            <div key={one.model}>
              <strong>{one.model}:</strong> {one.why} {one.remedy}
            </div>
          ))}
        </Alert>
      )}
    </Stack>
  );
}

function Drawn({ fit }: { fit: Fit }) {
  const [nodes, more] = useFirst(Object.keys(fit.nodes));
  const shown = rows(fit).filter(({ node }) => nodes.includes(node));
  return (
    <Box sx={{ mt: 2 }}>
      <Box component="svg" aria-hidden sx={{ position: "absolute", width: 0, height: 0 }}>
        <pattern id="in-use" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <rect width="3" height="6" fill="var(--mui-palette-text-disabled)" />
        </pattern>
      </Box>
      <Stack direction="row" component="ul" sx={{ gap: 2, rowGap: 0.5, flexWrap: "wrap", listStyle: "none", m: 0, mb: 1, p: 0 }}>
        {PARTS.map((part) => (
          <Box component="li" key={part} sx={{ display: "flex", alignItems: "center", gap: 0.75 }}>
            <Box component="svg" aria-hidden sx={{ width: 12, height: 12 }}>
              <rect x="0.5" y="0.5" width="11" height="11" fill={COLOUR[part]} stroke="var(--mui-palette-text-disabled)" />
            </Box>
            {t.fitParts[part]}
          </Box>
        ))}
      </Stack>
      {nodes.map((node) => (
        <Machine key={node} node={node} fit={fit} places={shown.filter((row) => row.node === node)} />
      ))}
      {more}
      <Box component="details" sx={{ mt: 1.5 }}>
        <summary>{t.asTable}</summary>
        <Rows id="fit" heads={[t.machine, t.place, ...PARTS.map((part) => t.fitParts[part]), t.models]}>
          {shown.map((row) => (
            <TableRow key={`${row.node} ${row.uuid}`}>
              <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
                {row.node}
              </TableCell>
              <TableCell>{row.uuid ? `${row.name} ${row.uuid}` : t.memory}</TableCell>
              {PARTS.map((part) => (
                <TableCell key={part} sx={{ textAlign: "right", whiteSpace: "nowrap", fontVariantNumeric: "tabular-nums" }}>
                  {size(bytesOf(row.place, part))}
                </TableCell>
              ))}
              <TableCell>{row.place.models.join(", ")}</TableCell>
            </TableRow>
          ))}
        </Rows>
        <Box component="ul" sx={{ pl: 2.5 }}>
          {fit.placed.map((one) => (
            <li key={`${one.model} ${one.replica}`}>
              <strong>{t.onNode(one.model, one.replica, one.node)}:</strong> {one.why}
            </li>
          ))}
        </Box>
      </Box>
    </Box>
  );
}

function Machine({ node, fit, places }: { node: string; fit: Fit; places: Row[] }) {
  const { disk, left_out } = fit.nodes[node]!;
  return (
    <Box role="group" aria-label={node} sx={{ mb: 1.5 }}>
      <Typography sx={{ fontWeight: 600 }}>{node}</Typography>
      <Box component="ul" sx={{ listStyle: "none", m: 0, p: 0 }}>
        {places.map((row) => (
          <Box component="li" key={row.uuid ?? ""} sx={{ mt: 0.5 }}>
            <Stack direction="row" sx={{ columnGap: 1, flexWrap: "wrap", justifyContent: "space-between" }}>
              <span>
                {row.uuid ? row.name : t.memory}
                {row.place.models.length > 0 && `: ${row.place.models.join(", ")}`}
              </span>
              <Typography component="span" color="textSecondary" sx={{ fontVariantNumeric: "tabular-nums" }}>
                {t.freeOf(size(row.place.free_bytes), size(row.place.total_bytes))}
              </Typography>
            </Stack>
            <Box component="svg" role="img" aria-label={segments(row.place).map(({ part, bytes }) => `${t.fitParts[part]} ${size(bytes)}`).join(", ")} sx={{ display: "block", width: "100%", height: 14, border: 1, borderColor: "text.disabled", borderRadius: 0.5 }}>
              {segments(row.place).map(({ part, bytes, left, width }) => (
                <rect key={part} x={`${left}%`} width={`${width}%`} height="14" fill={COLOUR[part]}>
                  <title>{`${t.fitParts[part]} ${size(bytes)}`}</title>
                </rect>
              ))}
            </Box>
          </Box>
        ))}
      </Box>
      {disk.taken_bytes > 0 && <Typography color="textSecondary">{t.toPull(disk.path, size(disk.taken_bytes), size(disk.free_bytes))}</Typography>}
      {left_out.map((why) => (
        <Typography key={why} color="warning">
          {t.notUsed(why)}
        </Typography>
      ))}
    </Box>
  );
}
