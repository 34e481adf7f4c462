import {
  Alert,
  AppBar,
  Box,
  Button,
  Chip,
  Link,
  List,
  ListItem,
  ListItemButton,
  ListItemText,
  MenuItem,
  Paper,
  Select,
  Stack,
  Toolbar,
  Typography,
  useColorScheme,
} from "@mui/material";
import { useQueryClient } from "@tanstack/react-query";
import { type MouseEvent, type ReactNode, useEffect, useRef } from "react";
import { api, type Check, type Draft, type Me, type Member, type Step } from "./api";
import { Field } from "./field";
import { go, NowContext, useChecks, useDraft, useNow, useOutbox, usePath, useRuns, useSchema, useUnsent, useWatch } from "./hooks";
import { at } from "./place";
import { called, CONNECTIONS, isOfConnections } from "./start";
import { t } from "./texts";
import { FIRST, rolesOf, when } from "./words";
import { Wrong } from "./wrong";

function follow(path: string) {
  return (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(path);
  };
}

/** Left the steps, in the middle the page, right the cluster as it is. */
export default function Frame({ me, children }: { me: Me; children: ReactNode }) {
  const schema = useSchema();
  const draft = useDraft();
  const queries = useQueryClient();
  const { flush } = useOutbox();
  const path = usePath();
  const checks = useChecks();
  // Machines on which nothing was set up yet are not asked behind anybody's back.
  const now = useWatch(me.scopes.includes("events") && (path === "/cluster" || !!checks.data?.checks.length));
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  // Whoever goes on by keyboard or hears the page is taken to the new heading, or to the field that they have asked for.
  useEffect(() => {
    if (first.current) first.current = false;
    else if (!location.hash) {
      main.current?.focus({ preventScroll: true }); // which would put its heading under the bar
      window.scrollTo(0, 0);
    }
  }, [path]);
  const leave = async () => {
    await flush();
    await api.signOut().catch(() => undefined);
    await queries.invalidateQueries({ queryKey: ["welcome"] });
  };
  return (
    <Box sx={{ minHeight: "100vh", display: "flex", flexDirection: "column" }}>
      <Link href="#content" sx={{ position: "absolute", left: -9999, "&:focus": { left: 8, top: 8, zIndex: 2000, bgcolor: "background.paper", p: 1 } }}>
        {t.skip}
      </Link>
      <AppBar position="sticky" color="default" elevation={0} sx={{ borderBottom: 1, borderColor: "divider" }}>
        <Toolbar variant="dense" sx={{ gap: 1, flexWrap: "wrap" }}>
          <Box component="img" src={at("/icon.svg")} alt="" sx={{ width: 24 }} />
          <Typography component="span" sx={{ fontWeight: 600, flexGrow: 1 }}>
            {t.title}
            {draft.data && ` · ${draft.data.cluster}`}
          </Typography>
          <Scheme />
          {me.kind === "user" ? (
            <Link href={at("/people")} onClick={follow("/people")} color="inherit" title={t.account}>
              {me.name}
            </Link>
          ) : (
            <Typography component="span">{me.name}</Typography>
          )}
          <Button onClick={() => void leave()}>{t.signOut}</Button>
        </Toolbar>
      </AppBar>
      {draft.isError && <Alert severity="warning">{t.disconnected}</Alert>}
      <Box sx={{ display: "flex", flexGrow: 1, flexDirection: { xs: "column", md: "row" }, alignItems: "flex-start" }}>
        <Box component="nav" aria-label={t.steps} sx={{ width: { xs: "100%", md: 232 }, flexShrink: 0, position: { md: "sticky" }, top: { md: 48 } }}>
          {schema.data && <Steps steps={schema.data.steps} draft={draft.data} path={path} admin={me.scopes.includes("auth")} />}
        </Box>
        <NowContext value={now}>
          {/* Where there is no room beside the page, the cluster is below it. */}
          <Box sx={{ display: "flex", flexDirection: { xs: "column", lg: "row" }, alignItems: "flex-start", flexGrow: 1, minWidth: 0, width: "100%" }}>
            <Box component="main" id="content" ref={main} tabIndex={-1} sx={{ flexGrow: 1, minWidth: 0, p: 2, width: "100%", outline: "none" }}>
              <Typed />
              {children}
            </Box>
            <Box component="aside" aria-label={t.cluster} sx={{ width: { xs: "100%", lg: 280 }, flexShrink: 0, p: 2, position: { lg: "sticky" }, top: 48 }}>
              <Beside draft={draft.data} />
            </Box>
          </Box>
        </NowContext>
      </Box>
    </Box>
  );
}

/** What has become of what was typed, where it is not simply on the server. */
function Typed() {
  const { values, away, refused, conflict } = useUnsent();
  const { agree } = useOutbox();
  useEffect(() => {
    if (!away) return;
    const ask = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", ask);
    return () => window.removeEventListener("beforeunload", ask);
  }, [away]);
  return (
    <Stack spacing={1} sx={{ "&:not(:empty)": { mb: 2 } }}>
      {away && <Alert severity="warning">{t.unsent(Object.keys(values).length)}</Alert>}
      {conflict && (
        <Alert severity="warning" onClose={agree}>
          {t.conflict(conflict.by, conflict.paths.map((path) => path.split("/").slice(1).join(" ")).join(", "))}
        </Alert>
      )}
      <Wrong error={refused} />
    </Stack>
  );
}

function Scheme() {
  const { mode, setMode } = useColorScheme();
  return (
    <Select
      size="small"
      variant="standard"
      disableUnderline
      value={mode ?? "system"}
      onChange={(event) => setMode(event.target.value as "light" | "dark" | "system")}
      inputProps={{ "aria-label": t.colours }}
    >
      {(["system", "light", "dark"] as const).map((one) => (
        <MenuItem key={one} value={one}>
          {t.theme[one]}
        </MenuItem>
      ))}
    </Select>
  );
}

/** So many runs are beside each page; all of them are on the cluster's. */
const LAST = 3;
const COLOURS = { pass: "success", warn: "warning", fail: "error" } as const;

/** Beside the page one below the other; above it, where that is narrow, as they fit. */
const ROWS = { display: { xs: "flex", md: "block" }, flexWrap: "wrap", "& > li": { width: { xs: "auto", md: "100%" } }, "& a": { px: { xs: 1, md: 2 }, py: { xs: 0, md: 0.5 } } } as const;

function Steps({ steps, draft, path, admin }: { steps: Step[]; draft: Draft | undefined; path: string; admin: boolean }) {
  const places = [
    ...steps.map((step) => ({ path: `/step/${step.number}`, label: `${step.number}. ${step.title}`, step })),
    { path: "/review", label: t.reviewTitle, step: null },
  ];
  const runs = useRuns().data?.runs;
  const run = path.startsWith("/run/") ? runs?.find((one) => path === `/run/${one.run}`) : undefined;
  const current = path === "/" ? "/step/1" : path.startsWith("/run/") ? (path.endsWith("-detect") ? "/step/1" : run && isOfConnections(run.command, run.only) ? `/step/${CONNECTIONS}` : "/review") : path;
  return (
    <>
      <List component="ol" dense disablePadding sx={{ ...ROWS, py: 1 }}>
        {places.map((place) => {
          const here = place.path === current;
          return (
            <ListItem key={place.path} disablePadding>
              <ListItemButton component="a" href={at(place.path)} selected={here} aria-current={here ? "step" : undefined} onClick={follow(place.path)}>
                <ListItemText primary={place.label} />
                {place.step && <State draft={draft} step={place.step} />}
              </ListItemButton>
            </ListItem>
          );
        })}
      </List>
      <List dense disablePadding sx={{ ...ROWS, borderTop: 1, borderColor: "divider" }}>
        {[["/cluster", t.cluster] as const, ["/cost", t.cost] as const, ...(admin ? [["/people", t.people] as const] : [])].map(([to, label]) => (
          <ListItem key={to} disablePadding>
            <ListItemButton component="a" href={at(to)} selected={current === to} aria-current={current === to ? "page" : undefined} onClick={follow(to)}>
              <ListItemText primary={label} />
            </ListItemButton>
          </ListItem>
        ))}
      </List>
    </>
  );
}

/** What is to be done about a step, the most urgent first: problems, what is not applied yet, checks that fail; or that all is well. */
function State({ draft, step }: { draft: Draft | undefined; step: Step }) {
  const checks = useChecks().data?.checks.filter((check) => step.roles.some((role) => role.name === check.role)) ?? [];
  const found = draft?.problems.filter((problem) => problem.step === step.number) ?? [];
  const typed = Object.keys(draft?.changed ?? {}).filter((path) => isOf(path, step)).length;
  const errors = found.filter((problem) => problem.severity !== "warning").length;
  const warnings = found.length - errors;
  if (errors) return <Chip size="small" color="error" label={errors} aria-label={t.problems(errors)} />;
  if (warnings) return <Chip size="small" color="warning" variant="outlined" label={warnings} aria-label={t.warnings(warnings)} />;
  if (typed) return <Chip size="small" variant="outlined" label={t.typed} aria-label={t.unapplied(typed)} />;
  const failing = checks.filter((check) => check.status === "fail").length;
  if (failing) return <Chip size="small" color="error" variant="outlined" label={t.checksFail(failing)} />;
  if (checks.length) return <Chip size="small" color="success" variant="outlined" label="✓" aria-label={t.inPlace} />;
  return null;
}

/** Whether a path of the draft is of this step; machines are of the first. */
function isOf(path: string, step: Step): boolean {
  const parts = path.split("/");
  const ofMachines = parts[0] === "known_hosts.txt" || (parts[0] === "nodes" && parts.length === 2);
  return ofMachines ? step.number === 1 : step.roles.some((role) => parts[parts.length - 1]! in role.schema.properties);
}

/** The cluster as it is now, and what is wrong with what is typed, each with the way to its field. */
function Beside({ draft }: { draft: Draft | undefined }) {
  const runs = useRuns();
  const checks = useChecks();
  const { cluster } = useNow();
  if (!draft) return null;
  const typed = Object.keys(draft.changed).length;
  const machines = Object.entries(draft.nodes);
  const newest = runs.data?.runs.slice(0, LAST) ?? [];
  return (
    <Stack spacing={2}>
      <Paper sx={{ p: 1.500 }}>
        <Typography variant="h2" gutterBottom>
          {t.machines}
        </Typography>
        <Stack component="ul" spacing={0.500} sx={{ listStyle: "none", p: 0, m: 0 }}>
          {machines.slice(0, FIRST).map(([name, node]) => (
            <Box component="li" key={name}>
              <Typography sx={{ fontWeight: 600, overflowWrap: "anywhere" }}>{name}</Typography>
              <Typography color="textSecondary">{[node.address, rolesOf(node.groups)].filter(Boolean).join(", ")}</Typography>
              <Health member={cluster?.current ? cluster.members.find((member) => member.name === name) : undefined} checks={checks.data?.checks.filter((check) => check.node === name) ?? []} />
            </Box>
          ))}
        </Stack>
        {machines.length > FIRST && <Typography color="textSecondary">{t.more(machines.length - FIRST)}</Typography>}
      </Paper>
      {newest.length > 0 && (
        <Paper sx={{ p: 1.500 }}>
          <Typography variant="h2" gutterBottom>
            {t.lastRuns}
          </Typography>
          <Stack component="ul" spacing={0.500} sx={{ listStyle: "none", p: 0, m: 0 }}>
            {newest.map(({ run, command, only, started }) => (
              <li key={run}>
                <Link href={at(`/run/${run}`)} onClick={follow(`/run/${run}`)}>
                  {called(command, only)}
                </Link>
                <Typography color="textSecondary">{when(started)}</Typography>
              </li>
            ))}
          </Stack>
        </Paper>
      )}
      {typed > 0 && <Alert severity="info">{t.unapplied(typed)}</Alert>}
      {draft.problems.map((problem) => (
        <Alert key={`${problem.option} ${problem.node ?? ""} ${problem.message}`} severity={problem.severity ?? "error"}>
          <Field option={problem.option} step={problem.step ?? 1} />
          {problem.node && ` (${problem.node})`}: {problem.message}
        </Alert>
      ))}
    </Stack>
  );
}

/** How a machine is now or, where nobody tells, was when it was checked last; nothing where it was not. */
function Health({ member, checks }: { member: Member | undefined; checks: Check[] }) {
  const [failed = 0, warned = 0] = ["fail", "warn"].map((status) => checks.filter((check) => check.status === status).length);
  if (!member && !checks.length) return null;
  const status = member?.health ?? (failed ? "fail" : warned ? "warn" : "pass");
  const told = member ? [t.health[status], ...(member.primary ? [t.primary] : [])].join(", ") : failed ? t.checksFail(failed) : warned ? t.warnings(warned) : t.health.pass;
  return <Chip component="a" clickable href={at("/cluster")} onClick={follow("/cluster")} size="small" variant="outlined" color={COLOURS[status]} sx={{ height: "auto", "& > span": { whiteSpace: "normal" } }} label={`${told} · ${member ? t.justNow : t.lastChecked}`} />;
}
