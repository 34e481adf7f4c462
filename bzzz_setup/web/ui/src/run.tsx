import { Accordion, AccordionDetails, AccordionSummary, Alert, Box, Button, Card, CardContent, Chip, LinearProgress, Stack, TextField, Typography } from "@mui/material";
import { useMutation } from "@tanstack/react-query";
import { lazy, Suspense, useDeferredValue, useEffect, useMemo, useRef, useState } from "react";
import { api, type Check, type Report } from "./api";
import { Changed } from "./changed";
import { go, useRun } from "./hooks";
import type { Live } from "./live";
import { called, CONNECTIONS, isOfConnections, useStart } from "./start";
import { at } from "./place";
import { t } from "./texts";
import { capital, naturally, when } from "./words";
import { Problems } from "./wrong";

const Between = lazy(() => import("./between"));

/** Where what a run has found or done is looked at. */
const AFTERWARDS: Record<string, string> = { detect: "/step/1", plan: "/review", apply: "/cluster", verify: "/cluster", "models-plan": "/step/4#models_wanted" };

/** Lines of the log that are in the page at a time. */
const PAGE = 300;

/** A run as it goes: steps × machines, what is happening in words, what went wrong, and the log. */
export default function RunPage({ name }: { name: string }) {
  const { live, connected, more } = useRun(name);
  const stopping = useMutation({ mutationFn: () => api.stop(name) });
  const applying = useStart("apply");
  if (!live) return <LinearProgress aria-label={t.loading} />;
  const { report } = live;
  const only = report.steps.map((step) => step.number);
  const connections = isOfConnections(report.command, only);
  const after = connections ? `/step/${CONNECTIONS}` : AFTERWARDS[report.command];
  const failed = report.steps.find((step) => step.state === "failed" || (!report.running && step.state === "running"));
  return (
    <Stack spacing={2}>
      <Stack direction="row" sx={{ gap: 2, alignItems: "center", flexWrap: "wrap" }}>
        <Typography variant="h1" sx={{ flexGrow: 1 }}>
          {called(report.command, only)} · {when(report.started)}
        </Typography>
        <Outcome report={report} />
        {report.running && report.steps.length > 1 && <Pause report={report} />}
        {report.running ? (
          <Button color="error" variant="outlined" loading={stopping.isPending} disabled={stopping.isSuccess} onClick={() => stopping.mutate()}>
            {stopping.isSuccess ? t.stopping : t.stop}
          </Button>
        ) : (
          <>
            <Button component="a" href={at(`/api/v1/runs/${name}/report`)} target="_blank" rel="noopener">
              {t.report}
            </Button>
            {after && (
              <Button variant="outlined" onClick={() => go(after)}>
                {connections ? t.backTo(CONNECTIONS) : t.afterwards[report.command]}
              </Button>
            )}
          </>
        )}
      </Stack>
      {!connected && <Alert severity="warning">{t.disconnected}</Alert>}
      {report.paused !== null && <Alert severity="info">{t.waitsBefore(report.paused)}</Alert>}
      {connections && report.changes.length > 0 && <Alert severity="info">{t.connectionsPlan}</Alert>}
      <Strip report={report} />
      <Box aria-live="polite" aria-atomic="true">
        <Doing live={live} />
      </Box>
      <Problems problems={report.problems} />
      {/* Where it was refused, the declaration's problems say all of it. */}
      {(report.outcome === "refused" && report.problems.length ? [] : report.failures).map((failure, place) => (
        <Alert key={`${failure.step} ${failure.node} ${failure.task} ${place}`} severity="error">
          <strong>{failure.node}</strong> ({failure.role}: {failure.task}): {failure.message}
          {failure.remedy && (
            <div>
              {t.remedy}: {failure.remedy}
            </div>
          )}
        </Alert>
      ))}
      {!report.running && failed && report.command === "apply" && (
        <Box>
          <Button variant="contained" loading={applying.isPending} onClick={() => applying.mutate(report.steps.map((step) => step.number).filter((number) => number >= failed.number))}>
            {t.applyFrom(failed.number)}
          </Button>
        </Box>
      )}
      {connections && !report.running && (
        <Suspense>
          <Between name={name} />
        </Suspense>
      )}
      {(!report.running || report.checks.some((check) => check.status === "fail")) && (report.command !== "plan" || connections) && <Checks report={report} all={connections} />}
      {!report.running && !connections && <Changed report={report} />}
      <Log live={live} more={more} />
    </Stack>
  );
}

/** Has a run wait before its next step, and go on. */
function Pause({ report }: { report: Report }) {
  const [asked, setAsked] = useState(report.pausing);
  useEffect(() => setAsked(report.pausing), [report.pausing, report.paused]);
  const asking = useMutation({ mutationFn: (wanted: boolean) => api.pause(report.run, wanted), onSuccess: ({ pausing }) => setAsked(pausing) });
  return (
    <Button variant={report.paused === null ? "outlined" : "contained"} loading={asking.isPending} onClick={() => asking.mutate(!asked)}>
      {!asked ? t.pause : report.paused === null ? t.pausing : t.goOn}
    </Button>
  );
}

function Outcome({ report }: { report: Report }) {
  if (report.running) return <Chip color="primary" label={t.running} />;
  return report.exit_code === 0 ? <Chip color="success" label={t.fine} /> : <Chip color="error" label={t.outcomes[report.outcome] ?? report.outcome} />;
}

const STATES = { waiting: t.waiting, running: t.running, done: t.done, failed: t.failed } as Record<string, string>;

/** Steps × machines: a strip that fills. */
function Strip({ report }: { report: Report }) {
  const nodes = Object.keys(report.nodes);
  return (
    <Box tabIndex={0} role="region" aria-label={t.steps} sx={{ overflowX: "auto" }}>
      <Box component="table" sx={{ borderCollapse: "separate", borderSpacing: "3px", width: "100%", minWidth: 480, tableLayout: "fixed" }}>
        <thead>
          <tr>
            <Box component="td" sx={{ width: 110 }} />
            {report.steps.map((step) => (
              <Box component="th" scope="col" key={step.number} sx={{ fontWeight: 500, fontSize: 12, textAlign: "left", verticalAlign: "bottom" }}>
                {step.number}. {step.title}
              </Box>
            ))}
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => (
            <tr key={node}>
              <Box component="th" scope="row" sx={{ textAlign: "left", fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis" }}>
                {node}
              </Box>
              {report.steps.map((step) => (
                <Cell key={step.number} state={step.state} tally={step.nodes[node]} running={report.running} />
              ))}
            </tr>
          ))}
        </tbody>
      </Box>
    </Box>
  );
}

function Cell({ state, tally, running }: { state: string; tally: { changed: number; failed: boolean } | undefined; running: boolean }) {
  const shown = tally?.failed ? "failed" : !tally && state !== "running" ? "waiting" : state;
  const colours: Record<string, string> = { waiting: "action.disabledBackground", running: "primary.main", done: "success.main", failed: "error.main" };
  const text = tally?.failed ? t.failed : tally?.changed ? t.changes(tally.changed) : shown === "waiting" && !running ? t.notReached : STATES[shown];
  return (
    <Box component="td" sx={{ p: 0.500, fontSize: 12, borderLeft: 4, borderColor: colours[shown], bgcolor: "background.paper", color: shown === "waiting" ? "text.secondary" : "text.primary" }}>
      {text}
    </Box>
  );
}

function Doing({ live }: { live: Live }) {
  if (!live.report.running) return null;
  const doing = Object.entries(live.working);
  const tasks = new Map<string, string[]>();
  for (const [node, what] of doing) tasks.set(what.task, [...(tasks.get(what.task) ?? []), node]);
  return (
    <Typography>
      {[...tasks].slice(0, 3).map(([task, nodes]) => (
        <span key={task}>
          {task} ({nodes.length > 4 ? `${nodes.length} ${t.machines.toLowerCase()}` : nodes.join(", ")}){" "}
        </span>
      ))}
    </Typography>
  );
}

/** all: also what is well, in words. */
function Checks({ report, all }: { report: Report; all: boolean }) {
  const bad = report.checks.filter((check) => check.status === "fail" || check.status === "warn");
  const asked = report.checks.filter((check) => check.status !== "skip");
  if (!asked.length) return null;
  const good = asked.filter((check) => check.status === "pass").length;
  return (
    <Card variant="outlined" component="section" aria-label={t.checks}>
      <CardContent>
        <Typography variant="h2" gutterBottom>
          {t.checks}: {good} / {asked.length}
        </Typography>
        {bad.map((check) => (
          <Alert key={`${check.node} ${check.id}`} severity={check.status === "fail" ? "error" : "warning"} sx={{ mb: 1 }}>
            <strong>{check.node}</strong>: {check.title}. {check.seen} {check.remedy}
          </Alert>
        ))}
        {all && <Passed checks={report.checks.filter((check) => check.status === "pass")} />}
      </CardContent>
    </Card>
  );
}

/** What is well, by machine; first what is between them. */
function Passed({ checks }: { checks: Check[] }) {
  const among = (node: string) => node.includes(",");
  const nodes = [...new Set(checks.map((check) => check.node))].sort((a, b) => Number(among(b)) - Number(among(a)) || naturally(a, b));
  const list = nodes.map((node) => (
    <Box key={node} sx={{ mb: 1 }}>
      <Typography variant="h3">{among(node) ? capital(t.betweenMachines) : node}</Typography>
      <Box component="ul" sx={{ m: 0 }}>
        {checks
          .filter((check) => check.node === node)
          .map((check) => (
            <li key={check.id}>
              {check.title}: {check.seen}
              {check.expected && check.expected !== check.seen && ` (${t.asked(check.expected)})`}
            </li>
          ))}
      </Box>
    </Box>
  ));
  return (
    <Accordion disableGutters elevation={0} slotProps={{ transition: { unmountOnExit: true } }}>
      <AccordionSummary expandIcon={<span aria-hidden>▾</span>}>{t.passedChecks(checks.length)}</AccordionSummary>
      <AccordionDetails>{list}</AccordionDetails>
    </Accordion>
  );
}

const COLOURS = { ok: "text.secondary", changed: "success.main", failed: "error.main", note: "primary.main" };

function Log({ live, more }: { live: Live; more: (first: number) => Promise<void> }) {
  const [search, setSearch] = useState("");
  const [pages, setPages] = useState(1);
  const wanted = useDeferredValue(search.toLowerCase());
  const all = live.lines;
  const found = useMemo(() => (wanted ? all.filter((one) => `${one.node} ${one.text}`.toLowerCase().includes(wanted)) : all), [all, wanted]);
  const shown = found.slice(-PAGE * pages);
  // What was said before the page came.
  const [earlier] = useState(live.first);
  useEffect(() => void more(earlier).catch(() => undefined), [more, earlier]);
  // The newest line stays in sight until somebody scrolls away from it.
  const box = useRef<HTMLOListElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown.length, shown[shown.length - 1]?.id]);
  const asking = useMutation({
    mutationFn: async () => {
      if (found.length === shown.length) await more(live.first);
    },
    onSuccess: () => setPages(pages + 1),
  });
  return (
    <Card variant="outlined" component="section" aria-labelledby="log">
      <CardContent>
        <Stack direction="row" sx={{ gap: 2, alignItems: "center", mb: 1 }}>
          <Typography variant="h2" id="log" sx={{ flexGrow: 1 }}>
            {t.log}
          </Typography>
          <TextField label={t.search} value={search} onChange={(event) => setSearch(event.target.value)} />
        </Stack>
        {(live.first > 1 || found.length > shown.length) && (
          <Button loading={asking.isPending} onClick={() => asking.mutate()}>
            {t.older}
          </Button>
        )}
        <Box component="ol" ref={box} onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => (follows.current = scrollHeight - scrollTop - clientHeight < 24)} tabIndex={0} aria-labelledby="log" sx={{ listStyle: "none", m: 0, p: 0, maxHeight: 420, overflow: "auto", fontFamily: "monospace", fontSize: 12 }}>
          {shown.map((one) => (
            <Box component="li" key={one.id} sx={{ color: COLOURS[one.kind], whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>
              {new Date(one.at * 1000).toLocaleTimeString()} {one.node} {one.text}
            </Box>
          ))}
        </Box>
      </CardContent>
    </Card>
  );
}
