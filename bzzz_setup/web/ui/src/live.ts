import type { Report, RunEvent } from "./api";
import { t } from "./texts";

/** Lines that are kept of a log; older ones are asked for when they are wanted. */
export const LINES = 10_000;

export interface Line {
  id: number;
  at: number;
  node: string;
  text: string;
  kind: "ok" | "changed" | "failed" | "note";
}

/** A run as far as it is known: the report at some moment, what came after it, and the log, which knows nothing of reports. */
export interface Live {
  report: Report;
  /** Node to what it is doing. */
  working: Record<string, { step: number; task: string; role: string }>;
  /** Of every event from `first` to `heard`, none twice. */
  lines: Line[];
  first: number;
  heard: number;
  /** How many lines are kept: more where older ones were asked for. */
  room: number;
}

export function begun(report: Report): Live {
  return { report, working: {}, lines: [], first: report.last + 1, heard: report.last, room: LINES };
}

/** The run as another report tells it, as after a broken connection and at its end. It may be ahead of what was heard, or behind. */
export function told(live: Live, report: Report): Live {
  return report.last < live.report.last ? live : { ...live, report, working: report.running ? live.working : {} };
}

/** With a page of events, in their order, that end where those begin that are known. */
export function older(live: Live, events: RunEvent[]): Live {
  const first = events[0]?.id ?? live.first;
  if (events[events.length - 1]?.id !== live.first - 1) return live;
  const lines = events.flatMap((event) => line(event) ?? []);
  return { ...live, first, lines: [...lines, ...live.lines], room: live.room + lines.length };
}

function bad(status: string | undefined): boolean {
  return status === "failed" || status === "unreachable";
}

/** The line of the log that an event makes, if it makes one. */
export function line(event: RunEvent): Line | null {
  const told = { id: event.id, at: event.at, node: event.node ?? "" };
  if (event.event === "StepStarted") return { ...told, text: t.lines.step(event.step ?? 0), kind: "note" };
  if (event.event === "Paused") return { ...told, text: t.lines.waits(event.step ?? 0), kind: "note" };
  if (event.event === "Resumed") return { ...told, text: t.lines.goesOn, kind: "note" };
  if (event.event === "Message") return { ...told, text: event.text ?? "", kind: event.level === "error" ? "failed" : "note" };
  if (event.event === "RunFinished") return { ...told, text: event.interrupted ? t.lines.stopped : t.lines.ended, kind: "note" };
  if (event.event !== "TaskFinished" || event.status === "skipped") return null;
  const changed = event.changes?.length ? ` (${event.changes.map((one) => `${one.what} ${one.name}`).join(", ")})` : "";
  const text = `${event.role ? `${event.role}: ` : ""}${event.task ?? ""} — ${event.status}${changed}${event.message ? `: ${event.message}` : ""}`;
  return { ...told, text, kind: bad(event.status) ? "failed" : event.status === "changed" ? "changed" : "ok" };
}

/** The run after one more event. */
export function take(live: Live, event: RunEvent): Live {
  if (event.id <= live.heard) return live;
  const added = line(event);
  const lines = added ? [...live.lines.slice(-(live.room - 1)), added] : live.lines;
  const first = added && live.lines.length >= live.room ? lines[0]!.id : live.first;
  return { ...live, ...(event.id > live.report.last ? after(live, event) : {}), lines, first, heard: event.id };
}

function after(live: Live, event: RunEvent): Pick<Live, "report" | "working"> {
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
      const said = new Set(event.checks.map((check) => `${check.node} ${check.id}`));
      report.checks = [...report.checks.filter((check) => !said.has(`${check.node} ${check.id}`)), ...event.checks];
    }
    if (event.failure) report.failures = [...report.failures, event.failure];
    const known = new Set(report.problems.map((problem) => `${problem.option} ${problem.message}`));
    report.problems = [...report.problems, ...(event.problems ?? []).filter((problem) => !known.has(`${problem.option} ${problem.message}`))];
  } else if (event.event === "RunFinished") {
    working = {};
    report.running = false;
    report.paused = null;
  }
  return { report, working };
}
