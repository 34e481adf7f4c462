import { Alert, Box, Button, Card, CardContent, Stack, Typography } from "@mui/material";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api } from "./api";
import { Changed } from "./changed";
import { useDraft, useRun, useRuns } from "./hooks";
import { isOfConnections, useStart } from "./start";
import { Sure } from "./sure";
import { t } from "./texts";
import { Problems, Wrong } from "./wrong";

/** What is typed, what it would change, and the button that makes it so. */
export default function Review() {
  const draft = useDraft();
  const runs = useRuns();
  const queries = useQueryClient();
  const planning = useStart("plan");
  const applying = useStart("apply");
  const discarding = useMutation({
    mutationFn: () => api.discard(draft.data?.revision ?? 0),
    onSuccess: (found) => queries.setQueryData(["draft"], found),
  });
  if (!draft.data || !runs.data) return null;
  const typed = Object.keys(draft.data.changed);
  const errors = draft.data.problems.filter((problem) => problem.severity !== "warning");
  const newest = runs.data.runs.find((run) => !isOfConnections(run.command, run.only));
  const plan = newest?.command === "plan" && !newest.only.length ? newest.run : null;
  const refused = applying.error ?? planning.error;
  return (
    <Stack spacing={2}>
      <Typography variant="h1">{t.reviewTitle}</Typography>
      <Typography>{t.planNote}</Typography>
      <Wrong error={refused} />
      {errors.length > 0 && (
        <Box aria-label={t.problems(errors.length)} role="group">
          <Problems problems={errors} />
        </Box>
      )}
      {typed.length > 0 && (
        <Card variant="outlined">
          <CardContent>
            <Typography variant="h2">{t.unapplied(typed.length)}</Typography>
            <Box component="ul" sx={{ my: 1 }}>
              {typed.map((path) => (
                <li key={path}>
                  <code>{path.split("/").slice(1).join(" ")}</code>
                  <Value draft={draft.data} path={path} />
                </li>
              ))}
            </Box>
            <Sure color="inherit" label={t.discard} question={t.discardQuestion} then={() => discarding.mutate()} />
          </CardContent>
        </Card>
      )}
      <Stack direction="row" spacing={1}>
        <Button variant="outlined" loading={planning.isPending} onClick={() => planning.mutate([])}>
          {t.plan}
        </Button>
        <Button variant="contained" loading={applying.isPending} disabled={errors.length > 0} onClick={() => applying.mutate([])}>
          {t.apply}
        </Button>
      </Stack>
      {plan && <Planned name={plan} />}
    </Stack>
  );
}

function Value({ draft, path }: { draft: import("./api").Draft; path: string }) {
  const [kind, first = "", second = ""] = path.split("/");
  if (kind === "secrets") return <>: {t.secretSet.split(";")[0]}</>;
  const value = kind === "options" ? draft.options[first] : second ? draft.nodes[first]?.options[second] : draft.nodes[first];
  return <>: {value === undefined ? "—" : JSON.stringify(value)}</>;
}

function Planned({ name }: { name: string }) {
  const { live } = useRun(name);
  if (!live) return null;
  return (
    <>
      <Changed report={live.report} />
      {live.report.forecast.length > 0 && <Alert severity="info">{live.report.forecast.join(" ")}</Alert>}
    </>
  );
}
