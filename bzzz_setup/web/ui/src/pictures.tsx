import { Accordion, AccordionDetails, AccordionSummary, Autocomplete, Box, Button, Card, CardContent, Chip, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import type { WidgetProps } from "@rjsf/utils";
import { type ReactNode, useMemo, useState } from "react";
import type { Draft, Gpu, Seen, Step, Topology } from "./api";
import { among, axis, choices, portRows, primaryOf } from "./drawing";
import { Field } from "./field";
import { useDraft, useNodes } from "./hooks";
import { t } from "./texts";
import { FIRST, when } from "./words";

/** What there is to look at for a role: nothing where nothing has been seen. */
export default function Pictures({ role, steps, draft }: { role: string; steps: Step[]; draft: Draft }) {
  const nodes = useNodes();
  const seen = Object.entries(nodes.data?.nodes ?? {}).filter(([name]) => name in draft.nodes);
  if (role === "network") {
    return (
      <>
        {draft.networks.others.length > 0 && <Networks draft={draft} />}
        {seen.length > 0 && <Interfaces draft={draft} seen={seen} />}
      </>
    );
  }
  if (role === "service" && draft.ports.length > 0) return <Ports draft={draft} steps={steps} />;
  const withGpus = seen.filter(([, machine]) => machine.gpus.length > 0);
  if (role === "resources" && withGpus.length > 0) return <Gpus machines={withGpus} topologies={nodes.data?.topologies ?? []} />;
  return null;
}

// --- what all have in common ---

export function Picture({ id, title, note, children }: { id: string; title: string; note?: string; children: ReactNode }) {
  return (
    <Card variant="outlined" component="section" aria-labelledby={id}>
      <CardContent>
        <Typography variant="h2" id={id} gutterBottom>
          {title}
        </Typography>
        {note && (
          <Typography color="textSecondary" sx={{ mb: 1 }}>
            {note}
          </Typography>
        )}
        {children}
      </CardContent>
    </Card>
  );
}

export function Rows({ id, heads, children }: { id: string; heads: string[]; children: ReactNode }) {
  return (
    <TableContainer tabIndex={0} role="group" aria-labelledby={id}>
      <Table>
        <TableHead>
          <TableRow>
            {heads.map((head) => (
              <TableCell key={head}>{head}</TableCell>
            ))}
          </TableRow>
        </TableHead>
        <TableBody>{children}</TableBody>
      </Table>
    </TableContainer>
  );
}

/** The first few of many, and the way to all. */
export function useFirst<T>(all: T[]): [T[], ReactNode] {
  const [whole, setWhole] = useState(false);
  if (whole || all.length <= FIRST) return [all, null];
  return [all.slice(0, FIRST), <Button onClick={() => setWhole(true)}>{t.showAll(all.length)}</Button>];
}

const PAPER = "var(--mui-palette-background-paper)";
const TEXT = "var(--mui-palette-text-primary)";
const DIM = "var(--mui-palette-text-secondary)";
const LINE = "var(--mui-palette-divider)";
const COLOUR = { own: "var(--mui-palette-primary-main)", error: "var(--mui-palette-error-main)", warning: "var(--mui-palette-warning-main)", apart: DIM };

/** A bar on its track; what it says stands beside it in words. */
function Bar({ left = 0, width, colour }: { left?: number; width: number; colour: string }) {
  return (
    <Box component="svg" aria-hidden sx={{ display: "block", width: "100%", height: 10 }}>
      <rect width="100%" height="10" rx="3" fill={LINE} />
      <rect x={`${left}%`} width={`${width}%`} height="10" rx="3" fill={colour} />
    </Box>
  );
}

// --- step 2 ---

function Networks({ draft }: { draft: Draft }) {
  const { subnets, others } = draft.networks;
  const everyone = Object.keys(draft.nodes).length;
  const [shown, more] = useFirst(others);
  const bars = useMemo(() => axis([...subnets, ...shown.map((one) => one.network)]), [subnets, shown]);
  return (
    <Picture id="networks" title={t.networks} note={t.networksNote}>
      <Rows id="networks" heads={[t.network, t.verdict, t.onAxis, t.where, t.machines]}>
        {subnets.map((subnet, place) => (
          <TableRow key={subnet}>
            <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
              {subnet}
            </TableCell>
            <TableCell>{t.clusterNetwork}</TableCell>
            <TableCell sx={{ width: "35%", minWidth: 120 }}>
              <Bar {...bars[place]!} colour={COLOUR.own} />
            </TableCell>
            <TableCell colSpan={2} />
          </TableRow>
        ))}
        {shown.map((one, place) => (
          <TableRow key={`${one.network} ${one.interface} ${one.gateway ?? ""}`}>
            <TableCell component="th" scope="row">
              {one.network}
            </TableCell>
            <TableCell sx={{ color: one.severity ? `${one.severity}.main` : "text.secondary", fontWeight: one.severity ? 600 : 400 }}>
              {one.severity ? `⚠ ${t.overlaps[one.severity]}` : t.apart}
            </TableCell>
            <TableCell>
              <Bar {...bars[subnets.length + place]!} colour={COLOUR[one.severity ?? "apart"]} />
            </TableCell>
            <TableCell>{t.by(one.interface, one.kind, one.gateway)}</TableCell>
            <TableCell>{among(one.nodes, everyone)}</TableCell>
          </TableRow>
        ))}
      </Rows>
      {more}
    </Picture>
  );
}

function Interfaces({ draft, seen }: { draft: Draft; seen: [string, Seen][] }) {
  const all = seen.flatMap(([node, machine]) => machine.interfaces.map((one) => ({ node, one, primary: primaryOf(draft, node, machine) === one.name })));
  const [shown, more] = useFirst(all);
  return (
    <Picture id="interfaces" title={t.interfaces}>
      <Rows id="interfaces" heads={[t.machine, `${t.interface}, MAC`, t.addresses, `${t.state}, ${t.speed.toLowerCase()}`, "MTU", t.kind]}>
        {shown.map(({ node, one, primary }) => (
          <TableRow key={`${node} ${one.name}`}>
            <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
              {node}
            </TableCell>
            <TableCell sx={{ whiteSpace: "nowrap" }}>
              {one.name} {primary && <Chip size="small" color="primary" variant="outlined" label={t.primary} />}
              <Typography variant="body2" color="textSecondary" sx={{ fontFamily: "monospace" }}>
                {one.mac}
              </Typography>
            </TableCell>
            <TableCell sx={{ overflowWrap: "anywhere" }}>{one.addresses}</TableCell>
            <TableCell>
              {one.state} <span style={{ whiteSpace: "nowrap" }}>{one.speed}</span>
            </TableCell>
            <TableCell>{one.mtu}</TableCell>
            <TableCell>{[one.kind, one.driver].filter(Boolean).join(", ")}</TableCell>
          </TableRow>
        ))}
      </Rows>
      {more}
    </Picture>
  );
}

/** The field of an interface: those that were seen are offered, and any other name can be typed. */
export function InterfaceChoice({ id, label, value, placeholder, disabled, readonly, rawErrors, options, onChange }: WidgetProps) {
  const draft = useDraft();
  const seen = useNodes();
  const node = String(options.node ?? "");
  const offered = useMemo(
    () => (draft.data && seen.data ? choices(draft.data, seen.data.nodes, node ? [node] : Object.keys(draft.data.nodes)) : []),
    [draft.data, seen.data, node],
  );
  const shown = typeof value === "string" ? value : "";
  return (
    <Autocomplete
      freeSolo
      forcePopupIcon={offered.length > 0}
      popupIcon={<Box component="span" aria-hidden sx={{ fontSize: 12, width: 20 }}>▾</Box>}
      slotProps={{ popper: { container: () => document.getElementById("content") } }}
      fullWidth
      id={id}
      disabled={disabled || readonly}
      options={offered.map((one) => one.name)}
      value={shown || null}
      inputValue={shown}
      onInputChange={(_, text) => text !== shown && onChange(text || undefined)}
      renderOption={({ key, ...rest }, name) => {
        const one = offered.find((each) => each.name === name)!;
        return (
          <Box component="li" key={key} {...rest}>
            <Box>
              <strong>{name}</strong> {one.primary > 0 && <Chip size="small" color="primary" variant="outlined" label={node ? t.primary : t.primaryOn(one.primary)} />}
              <Typography variant="body2" color="textSecondary">
                {one.details}
              </Typography>
            </Box>
          </Box>
        );
      }}
      renderInput={(params) => (
        <TextField
          {...params}
          label={label}
          placeholder={placeholder}
          error={!!rawErrors?.length}
          slotProps={{
            ...params.slotProps,
            inputLabel: { ...params.slotProps.inputLabel, shrink: true },
            htmlInput: { ...params.slotProps.htmlInput, "aria-describedby": `${id}__help` },
          }}
        />
      )}
    />
  );
}

// --- step 6 ---

const STATE = { conflict: "error", warning: "warning", own: "primary", free: "success", unknown: "default" } as const;

function Ports({ draft, steps }: { draft: Draft; steps: Step[] }) {
  const rows = useMemo(() => portRows(draft), [draft]);
  const stepOf = (option: string) => steps.find((step) => step.roles.some((role) => option in role.schema.properties))?.number ?? 1;
  return (
    <Picture id="ports" title={t.ports} note={draft.facts_of ? t.seen(when(draft.facts_of)) : t.portsNotSeen}>
      <Rows id="ports" heads={[t.port, t.state, t.listener, t.machines, t.alreadyThere]}>
        {rows.map((row) => (
          <TableRow key={`${row.option} ${row.port}`}>
            <TableCell component="th" scope="row" sx={{ fontWeight: 600, whiteSpace: "nowrap" }}>
              {row.port} {row.protocol}
            </TableCell>
            <TableCell>
              <Chip size="small" variant="outlined" color={STATE[row.state]} label={t.portStates[row.state]} />
            </TableCell>
            <TableCell>
              <Field option={row.option} step={stepOf(row.option)} />
            </TableCell>
            <TableCell>{row.nodes}</TableCell>
            <TableCell sx={{ minWidth: row.problems.length ? 280 : 0 }}>
              {row.taken.map((who) => (
                <div key={who}>{who}</div>
              ))}
              {row.problems.map((problem) => (
                <Typography key={`${problem.message} ${problem.node ?? ""}`} variant="body2" sx={{ color: `${problem.severity ?? "error"}.main`, mt: 0.500 }}>
                  {problem.message} {problem.remedy}
                </Typography>
              ))}
            </TableCell>
          </TableRow>
        ))}
      </Rows>
    </Picture>
  );
}

// --- step 5 ---

function Gpus({ machines, topologies }: { machines: [string, Seen][]; topologies: Topology[] }) {
  const [shown, more] = useFirst(machines);
  const [drawn, moreDrawn] = useFirst(topologies);
  return (
    <>
      <Picture id="gpus" title={t.gpus}>
        <Box sx={{ display: "grid", gridTemplateColumns: "repeat(auto-fill, minmax(min(100%, 340px), 1fr))", gap: 2 }}>
          {shown.map(([node, machine]) => (
            <Box key={node}>
              <Typography variant="h3" gutterBottom>
                {node}
              </Typography>
              <Stack component="ul" spacing={1} sx={{ listStyle: "none", p: 0, m: 0 }}>
                {machine.gpus.map((gpu) => (
                  <GpuBar key={gpu.name} gpu={gpu} />
                ))}
              </Stack>
            </Box>
          ))}
        </Box>
        {more}
      </Picture>
      {drawn.length > 0 && (
        <Picture id="topologies" title={t.topologies}>
          {drawn.map((one) => (
            <Links key={one.where} drawn={one} />
          ))}
          {moreDrawn}
        </Picture>
      )}
    </>
  );
}

function GpuBar({ gpu }: { gpu: Gpu }) {
  return (
    <li>
      <Typography>
        <strong>{gpu.name}</strong> {gpu.model}
      </Typography>
      <Box sx={{ display: "grid", gridTemplateColumns: "1fr 170px", gap: 1, alignItems: "center" }}>
        {gpu.memory && <Bar width={gpu.memory.percent} colour={gpu.memory.full ? COLOUR.warning : COLOUR.own} />}
        <Typography variant="body2">{gpu.memory?.text ?? t.memoryNotTold}</Typography>
      </Box>
      <Typography variant="body2" color="textSecondary">
        {(gpu.status === "fail" || gpu.status === "warn") && <Chip size="small" color={gpu.status === "fail" ? "error" : "warning"} label={gpu.health} />}{" "}
        {gpu.details.filter((one) => DETAILS.includes(one.label)).map((one) => `${one.label} ${one.value}`).join(" · ")}
      </Typography>
    </li>
  );
}

/** Of a card's details, as the report names them, those that tell what runs on it. */
const DETAILS = ["Driver", "Runtime", "Temperature", "NUMA node", "MIG"];

/** How the GPUs of machines that are alike are joined: the report's drawing, and a table that says the same. */
function Links({ drawn }: { drawn: Topology }) {
  const id = `links-${drawn.nodes[0]}`;
  return (
    <Box sx={{ mb: 2 }}>
      <Typography variant="h3" id={id}>
        {drawn.where}
      </Typography>
      <Typography color="textSecondary">{drawn.models}</Typography>
      <Box tabIndex={0} role="group" aria-labelledby={id} sx={{ overflowX: "auto", my: 1 }}>
        <Box component="svg" role="img" aria-label={t.drawing(drawn.where)} viewBox={`0 0 ${drawn.width} ${drawn.height}`} sx={{ ...SVG, minWidth: Math.min(drawn.width, 620), maxWidth: drawn.width }}>
          {drawn.domains.map((one) => (
            <g key={one.label}>
              <rect className="domain" x={one.x} y={one.y} width={one.width} height={one.height} rx="8" />
              <text className="small" x={one.x + one.width / 2} y={one.y + one.height - 9}>
                {one.label}
              </text>
            </g>
          ))}
          {drawn.between && (
            <>
              <path className="host" d={`M${drawn.between.left} ${drawn.between.y}H${drawn.between.right}${drawn.between.ends.map((x) => `M${x} ${drawn.between!.y}v-16`).join("")}`} />
              <text className="small" x={(drawn.between.left + drawn.between.right) / 2} y={drawn.between.y + 13}>
                {t.betweenCpus}
              </text>
            </>
          )}
          {drawn.switches.map((one) => (
            <g key={one.left}>
              <path className="host" d={`M${one.left} ${one.y}H${one.right}${one.ends.map((x) => `M${x} ${one.y}v-12`).join("")}`} />
              <text className="small" x={(one.left + one.right) / 2} y={one.y + 12}>
                {one.label}
              </text>
            </g>
          ))}
          {drawn.fabrics.map((one) => (
            <g key={one.y}>
              <path className="fast" d={one.stubs.map((x) => `M${x} ${one.y + 18}V${one.bottom}`).join("")} />
              <rect className="fabric" x={one.left} y={one.y} width={one.width} height={19} rx="5" />
              <text className="on" x={one.left + one.width / 2} y={one.y + 13.5}>
                {one.label}
              </text>
            </g>
          ))}
          {drawn.arcs.map((one) => (
            <path key={one.path} className="fast" d={one.path} />
          ))}
          {drawn.arcs.map((one) => (
            <text key={one.path} className="label" x={one.x} y={one.y}>
              {one.label}
            </text>
          ))}
          {drawn.gpus.map((one) => (
            <g key={one.name}>
              <rect className="gpu" x={one.x} y={one.y} width={one.width} height={one.height} rx="5" />
              <text className="name" x={one.middle} y={one.y + 19}>
                {one.name}
              </text>
              <text x={one.middle} y={one.y + 36}>
                {one.memory}
              </text>
              <text className="small" x={one.middle} y={one.y + 52}>
                <title>{one.whole}</title>
                {one.model}
              </text>
            </g>
          ))}
        </Box>
      </Box>
      <Accordion disableGutters elevation={0} slotProps={{ transition: { unmountOnExit: true } }}>
        <AccordionSummary expandIcon={<span aria-hidden>▾</span>}>{t.linksAsTable}</AccordionSummary>
        <AccordionDetails>
          <Rows id={id} heads={[t.from, t.to, t.link]}>
            {drawn.links.map((one) => (
              <TableRow key={`${one.a} ${one.b}`}>
                <TableCell component="th" scope="row">
                  {one.a}
                </TableCell>
                <TableCell>{one.b}</TableCell>
                <TableCell>
                  {one.path}: {one.meaning}
                </TableCell>
              </TableRow>
            ))}
          </Rows>
        </AccordionDetails>
      </Accordion>
    </Box>
  );
}

const SVG = {
  display: "block",
  width: "100%",
  "& text": { fill: TEXT, fontSize: 12, textAnchor: "middle" },
  "& .name": { fontSize: 13, fontWeight: 600 },
  "& .small": { fill: DIM, fontSize: 11 },
  "& .label": { fill: COLOUR.own, fontWeight: 600, paintOrder: "stroke", stroke: PAPER, strokeWidth: 4 },
  "& .on": { fill: PAPER, fontWeight: 600 },
  "& .domain": { fill: "var(--mui-palette-background-default)", stroke: LINE },
  "& .gpu": { fill: PAPER, stroke: DIM },
  "& .fabric": { fill: COLOUR.own },
  "& .fast": { fill: "none", stroke: COLOUR.own, strokeWidth: 2.5 },
  "& .host": { fill: "none", stroke: DIM, strokeWidth: 1.5 },
};
