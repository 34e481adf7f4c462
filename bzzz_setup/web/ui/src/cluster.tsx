import { Alert, Button, Link, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, Typography } from "@mui/material";
import { go, useRuns } from "./hooks";
import { useStart } from "./start";
import { t } from "./texts";

/** Afterwards: how the cluster is, what has been run, and what can be taken along. */
export default function Cluster() {
  const runs = useRuns();
  const verifying = useStart("verify");
  if (!runs.data) return null;
  return (
    <Stack spacing={2}>
      <Typography variant="h1">{t.cluster}</Typography>
      {verifying.error && <Alert severity="error">{verifying.error.message}</Alert>}
      <Stack direction="row" spacing={1}>
        <Button variant="contained" loading={verifying.isPending} onClick={() => verifying.mutate([])}>
          {t.verify}
        </Button>
        <Button variant="outlined" component="a" href="/api/v1/export" download>
          {t.export}
        </Button>
      </Stack>
      <Typography variant="h2" id="runs">
        {t.runs}
      </Typography>
      {!runs.data.runs.length && <Typography>{t.noRuns}</Typography>}
      <TableContainer tabIndex={0} aria-labelledby="runs">
        <Table>
          <TableHead>
            <TableRow>
              {["Run", "Began", "Seconds", "End", t.report].map((head) => (
                <TableCell key={head}>{head}</TableCell>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {runs.data.runs.map((run) => (
              <TableRow key={run.run}>
                <TableCell component="th" scope="row">
                  <Link
                    href={`/run/${run.run}`}
                    onClick={(event) => {
                      event.preventDefault();
                      go(`/run/${run.run}`);
                    }}
                  >
                    {t.commands[run.command] ?? run.command}
                  </Link>
                </TableCell>
                <TableCell>{new Date(run.started * 1000).toLocaleString()}</TableCell>
                <TableCell>{run.seconds.toFixed(0)}</TableCell>
                <TableCell>{run.exit_code === 0 ? t.fine : run.outcome.replace("_", " ")}</TableCell>
                <TableCell>
                  <Link href={`/api/v1/runs/${run.run}/report`} target="_blank" rel="noopener">
                    {t.open}
                  </Link>
                </TableCell>
              </TableRow>
            ))}
          </TableBody>
        </Table>
      </TableContainer>
    </Stack>
  );
}
