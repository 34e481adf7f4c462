import { Accordion, AccordionDetails, AccordionSummary, Alert, Box, Card, CardContent, Typography } from "@mui/material";
import type { Report } from "./api";
import { t } from "./texts";

type Diff = Report["diffs"][number];

/** What was or would be changed, by step and node, with the lines of files that differ. Secrets are masked before they get here. */
export function Changed({ report }: { report: Report }) {
  if (!report.changes.length && !report.diffs.length) return report.command === "plan" && report.outcome === "fine" ? <Alert severity="success">{t.nothingToDo}</Alert> : null;
  return (
    <Card variant="outlined" component="section" aria-label={t.changes(report.changes.length)}>
      <CardContent>
        <Typography variant="h2" gutterBottom>
          {t.changes(report.changes.length)}
        </Typography>
        {report.steps.map((step) => {
          const [changes, diffs] = [report.changes, report.diffs].map((all) => all.filter((one) => one.step === step.number)) as [Report["changes"], Diff[]];
          const nodes = [...new Set([...changes, ...diffs].map((one) => one.node))].sort();
          if (!nodes.length) return null;
          return (
            <Box key={step.number} sx={{ mb: 1 }}>
              <Typography variant="h3">{`${step.number}. ${step.title}`}</Typography>
              {nodes.map((node) => (
                <OfNode key={node} node={node} changes={changes.filter((one) => one.node === node)} diffs={diffs.filter((one) => one.node === node)} />
              ))}
            </Box>
          );
        })}
      </CardContent>
    </Card>
  );
}

function OfNode({ node, changes, diffs }: { node: string; changes: Report["changes"]; diffs: Diff[] }) {
  return (
    <Accordion disableGutters elevation={0} slotProps={{ transition: { unmountOnExit: true } }}>
      <AccordionSummary expandIcon={<span aria-hidden>▾</span>}>{`${node}: ${t.changes(changes.length)}`}</AccordionSummary>
      <AccordionDetails>
        <Box component="ul" sx={{ m: 0 }}>
          {changes.map((change) => (
            <li key={`${change.kind} ${change.name} ${change.what}`}>
              {change.kind} <code>{change.name}</code> {change.what}
            </li>
          ))}
        </Box>
        {diffs.map((diff, place) => (
          <Accordion key={place} disableGutters variant="outlined" sx={{ mt: 1 }} slotProps={{ transition: { unmountOnExit: true } }}>
            <AccordionSummary expandIcon={<span aria-hidden>▾</span>}>{diff.after_header ?? diff.before_header ?? diff.role}</AccordionSummary>
            <AccordionDetails>
              <Box component="pre" tabIndex={0} sx={{ overflow: "auto", m: 0, fontSize: 12, maxHeight: 400 }}>
                {lines(diff.before, diff.after).map((line, number) => (
                  <Box key={number} component="span" sx={{ display: "block", color: line[0] === "+" ? "success.main" : line[0] === "-" ? "error.main" : "text.secondary" }}>
                    {line}
                  </Box>
                ))}
              </Box>
            </AccordionDetails>
          </Accordion>
        ))}
      </AccordionDetails>
    </Accordion>
  );
}

/** A difference as lines with + and -: what both begin and end with is left out but for three lines. */
export function lines(before: unknown, after: unknown): string[] {
  // Modules tell texts, or anything else.
  const [old, now] = [before, after].map((one) => (typeof one === "string" ? one : one === undefined || one === null ? "" : JSON.stringify(one, null, 1))).map((text) => (text ? text.replace(/\n$/, "").split("\n") : []));
  const a = old ?? [];
  const b = now ?? [];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  return [
    ...a.slice(Math.max(0, head - 3), head).map((line) => `  ${line}`),
    ...a.slice(head, a.length - tail).map((line) => `- ${line}`),
    ...b.slice(head, b.length - tail).map((line) => `+ ${line}`),
    ...a.slice(a.length - tail, a.length - tail + 3).map((line) => `  ${line}`),
  ];
}
