import { Alert, Box, Button, Card, CardContent, Chip, LinearProgress, Link, Menu, MenuItem, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, Typography } from "@mui/material";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type ChangeEvent, useRef, useState } from "react";
import { api, type Check, type Member, type News } from "./api";
import { go, useChecks, useDraft, useNow, useRuns } from "./hooks";
import { called, useStart } from "./start";
import { at } from "./place";
import { t } from "./texts";
import { naturally, rolesOf, when } from "./words";
import { Wrong } from "./wrong";

/** Afterwards: how the cluster is, what happens in it, what has been run, and what can be taken along. */
export default function Cluster() {
  const verifying = useStart("verify");
  return (
    <Stack spacing={2}>
      <Stack direction="row" sx={{ gap: 1, alignItems: "center", flexWrap: "wrap" }}>
        <Typography variant="h1" sx={{ flexGrow: 1 }}>
          {t.cluster}
        </Typography>
        <Button variant="contained" loading={verifying.isPending} onClick={() => verifying.mutate([])}>
          {t.verify}
        </Button>
        <Exports />
        <Import />
      </Stack>
      {verifying.error && <Alert severity="error">{verifying.error.message}</Alert>}
      <Live />
      <Checks />
      <Runs />
    </Stack>
  );
}

function Exports() {
  const [menu, setMenu] = useState<HTMLElement | null>(null);
  return (
    <>
      <Button variant="outlined" aria-haspopup="menu" aria-expanded={!!menu} onClick={(event) => setMenu(event.currentTarget)}>
        {t.exports}
      </Button>
      <Menu anchorEl={menu} open={!!menu} onClose={() => setMenu(null)}>
        {Object.entries(t.exportKinds).map(([kind, label]) => (
          <MenuItem key={kind} component="a" href={at(`/api/v1/export?kind=${kind}`)} download onClick={() => setMenu(null)}>
            {label}
          </MenuItem>
        ))}
      </Menu>
    </>
  );
}

function Import() {
  const draft = useDraft();
  const queries = useQueryClient();
  const taking = useMutation({
    mutationFn: async (file: File) => api.takeIn(draft.data?.revision ?? 0, await file.text()),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["draft"] }),
  });
  const input = useRef<HTMLInputElement>(null);
  const chosen = (event: ChangeEvent<HTMLInputElement>) => {
    const file = event.target.files?.[0];
    event.target.value = "";
    if (file) taking.mutate(file);
  };
  return (
    <>
      <Button variant="outlined" loading={taking.isPending} onClick={() => input.current?.click()}>
        {t.import}
      </Button>
      <input ref={input} type="file" accept=".yml,.yaml" hidden onChange={chosen} />
      {taking.error && (
        <Box sx={{ width: "100%" }}>
          <Wrong error={taking.error} />
        </Box>
      )}
      {taking.data && (
        <Alert severity="success" sx={{ width: "100%" }}>
          {t.imported(taking.data.changed.length)} {taking.data.left.length > 0 && t.importLeft(taking.data.left.join(", "))}{" "}
          {taking.data.secrets_missing.length > 0 && t.importSecrets(taking.data.secrets_missing.join(", "))}
        </Alert>
      )}
    </>
  );
}

// --- now ---

const HEALTH = { pass: "success", warn: "warning", fail: "error" } as const;

function Live() {
  const { cluster, events, away } = useNow();
  return (
    <>
      <Typography variant="h2">{t.now}</Typography>
      {away !== null && <Alert severity="info">{away}</Alert>}
      {!cluster && away === null && (
        <Box>
          <Typography>{t.waitingForCluster}</Typography>
          <LinearProgress aria-label={t.waitingForCluster} />
        </Box>
      )}
      {cluster && !cluster.current && (
        <Alert severity="warning">
          {t.asLastSeen}: {cluster.reason}
        </Alert>
      )}
      {cluster && (
        <Box component="ul" sx={{ display: "grid", gridTemplateColumns: "repeat(auto-fill, minmax(230px, 1fr))", gap: 1.500, listStyle: "none", m: 0, p: 0 }}>
          {cluster.members.map((member) => (
            <NodeCard key={member.name} member={member} />
          ))}
        </Box>
      )}
      {cluster && (
        <Card variant="outlined" component="section" aria-labelledby="events">
          <CardContent>
            <Typography variant="h2" id="events" gutterBottom>
              {t.events}
            </Typography>
            {!events.length && <Typography color="textSecondary">{t.noEvents}</Typography>}
            <Box component="ol" tabIndex={0} aria-labelledby="events" sx={{ listStyle: "none", m: 0, p: 0, maxHeight: 200, overflow: "auto" }}>
              {events.map((news) => (
                <li key={news.id}>
                  {news.time && new Date(news.time).toLocaleTimeString()} {inWords(news)}
                </li>
              ))}
            </Box>
          </CardContent>
        </Card>
      )}
    </>
  );
}

function inWords(news: News): string {
  const data = Object.entries(news.data ?? {}).flatMap(([key, value]) => (["string", "number"].includes(typeof value) && value !== "" ? [`${key} ${String(value)}`] : []));
  return [news.node, `${news.type}: ${(news.event ?? "").replaceAll("_", " ")}`, data.length ? `(${data.join(", ")})` : ""].filter(Boolean).join(" ");
}

function NodeCard({ member }: { member: Member }) {
  const has = member.capabilities ?? {};
  const gib = (mib: number | undefined) => (mib ? `${Math.round(mib / 1024)} GiB` : "");
  const machine = [has.os?.id && `${has.os.id} ${has.os.version ?? ""}`, has.cpu?.threads && `${has.cpu.threads} ${t.threads}`, gib(has.memory_total_mib)].filter(Boolean).join(", ");
  const models = has.ollama?.models ?? [];
  const well = member.checks?.filter((check) => check.status === "pass").map((check) => check.name) ?? [];
  return (
    <Card variant="outlined" component="li">
      <CardContent sx={{ p: 1.500, "&:last-child": { pb: 1.500 } }}>
        <Stack direction="row" sx={{ alignItems: "center", gap: 1 }}>
          <Typography variant="h3" noWrap sx={{ flexGrow: 1 }}>
            {member.name}
          </Typography>
          <Chip size="small" color={HEALTH[member.health]} variant={member.health === "pass" ? "outlined" : "filled"} label={t.health[member.health]} />
        </Stack>
        <Typography color="textSecondary">
          {[member.address, rolesOf(member.roles, member.primary)].filter(Boolean).join(", ")}
        </Typography>
        <Typography>{machine}</Typography>
        {has.gpus?.map((gpu, place) => (
          <Typography key={place}>
            {gpu.model ?? "GPU"} {gib(gpu.memory_total_mib)}
          </Typography>
        ))}
        <Typography color={models.length ? undefined : "textSecondary"}>{models.length ? `${t.models}: ${models.join(", ")}` : t.noModels}</Typography>
        {well.length > 0 && <Typography color="textSecondary">{t.wellAre(well.join(", "))}</Typography>}
        {member.checks
          ?.filter((check) => check.status !== "pass")
          .map((check) => (
            <Alert key={check.name} severity={check.status === "fail" ? "error" : "warning"} sx={{ mt: 1 }}>
              {check.name}: {check.message}
            </Alert>
          ))}
      </CardContent>
    </Card>
  );
}

// --- as it was checked last ---

function Checks() {
  const checks = useChecks();
  if (!checks.data) return null;
  const { at, checks: all } = checks.data;
  const asked = all.filter((check) => check.status !== "skip");
  // Checks of what is between machines name them all.
  const where = (check: Check) => (check.node.includes(",") ? t.betweenMachines : check.node);
  const machines = [...new Set(asked.map(where))].filter((node) => node !== t.betweenMachines).sort(naturally);
  const nodes = [...machines, ...(asked.some((check) => where(check) === t.betweenMachines) ? [t.betweenMachines] : [])];
  const roles = [...new Set(asked.map((check) => check.role ?? ""))].sort();
  const bad = asked.filter((check) => check.status !== "pass");
  return (
    <>
      <Typography variant="h2" id="checks">
        {at ? t.checksOf(when(at)) : t.checks}
      </Typography>
      {!asked.length && <Typography>{t.noChecks}</Typography>}
      {bad.map((check) => (
        <Alert key={`${check.node} ${check.id}`} severity={check.status === "fail" ? "error" : "warning"}>
          <strong>{check.node}</strong>: {check.title}. {check.seen} {check.remedy}
        </Alert>
      ))}
      {asked.length > 0 && (
        <TableContainer tabIndex={0} aria-labelledby="checks">
          <Table size="small">
            <TableHead>
              <TableRow>
                <TableCell>{t.role}</TableCell>
                {nodes.map((node) => (
                  <TableCell key={node}>{node}</TableCell>
                ))}
              </TableRow>
            </TableHead>
            <TableBody>
              {roles.map((role) => (
                <TableRow key={role}>
                  <TableCell component="th" scope="row">
                    {role}
                  </TableCell>
                  {nodes.map((node) => (
                    <Score key={node} checks={asked.filter((check) => where(check) === node && (check.role ?? "") === role)} />
                  ))}
                </TableRow>
              ))}
            </TableBody>
          </Table>
        </TableContainer>
      )}
    </>
  );
}

function Score({ checks }: { checks: Check[] }) {
  const passed = checks.filter((check) => check.status === "pass").length;
  const worst = checks.some((check) => check.status === "fail") ? "error.main" : passed < checks.length ? "warning.main" : "success.main";
  return <TableCell sx={{ borderLeft: 4, borderLeftColor: checks.length ? worst : "transparent" }}>{checks.length > 0 && t.passed(passed, checks.length)}</TableCell>;
}

function Runs() {
  const runs = useRuns();
  if (!runs.data) return null;
  return (
    <>
      <Typography variant="h2" id="runs">
        {t.runs}
      </Typography>
      {!runs.data.runs.length && <Typography>{t.noRuns}</Typography>}
      <TableContainer tabIndex={0} aria-labelledby="runs" hidden={!runs.data.runs.length}>
        <Table>
          <TableHead>
            <TableRow>
              {[...t.runHeads, t.report].map((head) => (
                <TableCell key={head}>{head}</TableCell>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {runs.data.runs.map((run) => (
              <TableRow key={run.run}>
                <TableCell component="th" scope="row">
                  <Link
                    href={at(`/run/${run.run}`)}
                    onClick={(event) => {
                      event.preventDefault();
                      go(`/run/${run.run}`);
                    }}
                  >
                    {called(run.command, run.only)}
                  </Link>
                </TableCell>
                <TableCell>{when(run.started)}</TableCell>
                <TableCell>{run.seconds.toFixed(0)}</TableCell>
                <TableCell>{run.exit_code === 0 ? t.fine : (t.outcomes[run.outcome] ?? run.outcome)}</TableCell>
                <TableCell>
                  <Link href={at(`/api/v1/runs/${run.run}/report`)} target="_blank" rel="noopener">
                    {t.open}
                  </Link>
                </TableCell>
              </TableRow>
            ))}
          </TableBody>
        </Table>
      </TableContainer>
    </>
  );
}
