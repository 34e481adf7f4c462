import type { Report, RunEvent } from "./api";

/** Lines that are kept of a log; older ones are asked for when they are wanted. */
export const LINES = 10_000;

export interface Line {
  id: number;
  at: number;
  node: string;
  text: string;
  kind: "ok" | "changed" | "failed" | "note";
}

/** A run as far as it is known: the report at some moment, and what came after it. */
export interface Live {
  report: Report;
  /** Node to what it is doing. */
  working: Record<string, { step: number; task: string; role: string }>;
  lines: Line[];
}

export function begun(report: Report): Live {
  return { report, working: {}, lines: [] };
}

function bad(status: string | undefined): boolean {
  return status === "failed" || status === "unreachable";
}

/** The line of the log that an event makes, if it makes one. */
export function line(event: RunEvent): Line | null {
  const told = { id: event.id, at: event.at, node: event.node ?? "" };
  if (event.event === "StepStarted") return { ...told, text: `— step ${event.step} —`, kind: "note" };
  if (event.event === "Paused") return { ...told, text: `waiting before step ${event.step}`, kind: "note" };
  if (event.event === "Resumed") return { ...told, text: "going on", kind: "note" };
  if (event.event === "Message") return { ...told, text: event.text ?? "", kind: event.level === "error" ? "failed" : "note" };
  if (event.event === "RunFinished") return { ...told, text: event.interrupted ? "stopped" : "ended", kind: "note" };
  if (event.event !== "TaskFinished" || event.status === "skipped") return null;
  const changed = event.changes?.length ? ` (${event.changes.map((one) => `${one.what} ${one.name}`).join(", ")})` : "";
  const text = `${event.role ? `${event.role}: ` : ""}${event.task ?? ""} — ${event.status}${changed}${event.message ? `: ${event.message}` : ""}`;
  return { ...told, text, kind: bad(event.status) ? "failed" : event.status === "changed" ? "changed" : "ok" };
}

/** The run after one more event. */
export function take(live: Live, event: RunEvent): Live {
  if (event.id <= live.report.last) return live;
  const report: Report = { ...live.report, last: event.id, seconds: Math.max(live.report.seconds, event.at - live.report.started) };
  let working = live.working;
  if (event.event === "StepStarted") {
    report.steps = report.steps.map((step) =>
      step.number === event.step
        ? { ...step, state: "running", started: event.at }
        : step.state === "running"
          ? { ...step, state: Object.values(step.nodes).some((node) => node.failed) ? "failed" : "done", seconds: event.at - step.started }
          : step,
    );
  } else if (event.event === "Paused") {
    report.paused = event.step ?? 0;
    report.pausing = true;
    // Ansible may have told of the step already.
    report.steps = report.steps.map((step) => (step.number === event.step ? { ...step, state: "waiting" } : step.state === "running" ? { ...step, state: "done", seconds: event.at - step.started } : step));
  } else if (event.event === "Resumed") {
    report.steps = report.steps.map((step) => (step.number === report.paused ? { ...step, state: "running", started: event.at } : step));
    report.paused = null;
    report.pausing = false;
  } else if (event.event === "TaskStarted" && event.node) {
    working = { ...working, [event.node]: { step: event.step ?? 0, task: event.task ?? "", role: event.role ?? "" } };
    if (!report.nodes[event.node]) report.nodes = { ...report.nodes, [event.node]: { changed: 0, failed: false, seconds: 0 } };
  } else if (event.event === "TaskFinished" && event.node) {
    const { [event.node]: _ended, ...others } = working;
    working = others;
    const changed = event.status === "changed" ? Math.max(1, event.changes?.length ?? 0) : 0;
    const node = event.node;
    report.steps = report.steps.map((step) => {
      if (step.number !== event.step) return step;
      const before = step.nodes[node] ?? { changed: 0, failed: false, seconds: 0 };
      const after = { changed: before.changed + changed, failed: before.failed || bad(event.status), seconds: before.seconds + (event.seconds ?? 0) };
      return { ...step, changed: step.changed + changed, nodes: { ...step.nodes, [node]: after } };
    });
    if (event.checks?.length) {
      const fresh = event.checks.map((check) => ({ ...check, node: check.node || node, step: event.step ?? 0 }));
      const told = new Set(fresh.map((check) => `${check.node} ${check.id}`));
      report.checks = [...report.checks.filter((check) => !told.has(`${check.node} ${check.id}`)), ...fresh];
    }
  } else if (event.event === "RunFinished") {
    working = {};
    report.running = false;
    report.paused = null;
  }
  const added = line(event);
  const lines = added ? [...live.lines.slice(-(LINES - 1)), added] : live.lines;
  return { report, working, lines };
}
