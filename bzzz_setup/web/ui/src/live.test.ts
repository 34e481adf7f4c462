import { expect, test } from "vitest";
import type { Report, RunEvent } from "./api";
import { lines } from "./changed";
import { begun, LINES, line, type Live, take } from "./live";
import { title } from "./words";

const step = (number: number) => ({ number, title: `${number}`, state: "waiting", seconds: 0, started: 0, changed: 0, nodes: {} });
const report = { run: "r", command: "apply", started: 100, seconds: 0, steps: [step(1), step(2)], nodes: {}, checks: [], last: 1, running: true } as unknown as Report;
const all = (...events: Partial<RunEvent>[]): Live => events.reduce<Live>((live, event, place) => take(live, { id: place + 2, at: 101 + place, ...event } as RunEvent), begun(report));

test("a step that begins ends the one before it, which failed if a machine did", () => {
  const live = all(
    { event: "StepStarted", step: 1 },
    { event: "TaskStarted", step: 1, node: "n1", task: "look" },
    { event: "TaskFinished", step: 1, node: "n1", task: "look", status: "changed", seconds: 2, changes: [{ kind: "file", name: "a", what: "create" }, { kind: "file", name: "b", what: "create" }] },
    { event: "TaskFinished", step: 1, node: "n2", task: "look", status: "failed", message: "no" },
    { event: "StepStarted", step: 2 },
  );
  expect(live.report.steps.map((one) => [one.state, one.changed])).toEqual([["failed", 2], ["running", 0]]);
  expect(live.report.steps[0]?.nodes).toEqual({ n1: { changed: 2, failed: false, seconds: 2 }, n2: { changed: 0, failed: true, seconds: 0 } });
  expect(live.working).toEqual({});
  expect(live.report.last).toBe(6);
});

test("what comes twice, as after a broken connection, counts once", () => {
  const once = all({ event: "TaskFinished", step: 1, node: "n1", task: "t", status: "changed" });
  expect(take(once, { id: 2, at: 1, event: "TaskFinished", step: 1, node: "n1", task: "t", status: "changed" })).toBe(once);
});

test("the last word on a check is the one that stands", () => {
  const check = (status: string) => [{ id: "c", node: "", title: "c", status, step: 1 }] as never;
  const live = all({ event: "TaskFinished", step: 1, node: "n1", status: "ok", checks: check("fail") }, { event: "TaskFinished", step: 1, node: "n1", status: "ok", checks: check("pass") });
  expect(live.report.checks.map((one) => [one.node, one.status])).toEqual([["n1", "pass"]]);
});

test("a log of any length stays in bounds, and what was skipped is no line", () => {
  let live = begun({ ...report, last: 0 });
  for (let id = 1; id <= LINES + 50; id++) live = take(live, { id, at: id, event: "Message", level: "warning", text: `${id}` });
  expect(live.lines.length).toBe(LINES);
  expect(live.lines.at(-1)?.text).toBe(`${LINES + 50}`);
  expect(line({ id: 1, at: 1, event: "TaskFinished", status: "skipped" })).toBeNull();
});

test("a difference shows what differs and three lines about it", () => {
  expect(lines("a\nb\nc\nd\ne\n", "a\nb\nc\nD\ne\n")).toEqual(["  a", "  b", "  c", "- d", "+ D", "  e"]);
  expect(lines("", "x\ny\n")).toEqual(["+ x", "+ y"]);
  expect(lines({ a: 1 }, undefined)).toEqual(["- {", '-  "a": 1', "- }"]);
  expect(lines("same\n", "same\n")).toEqual(["  same"]);
});

test("an option's name in words", () => {
  expect(title("service", "service_mcp_port")).toBe("MCP port");
  expect(title("tls", "tls_ca_valid_days")).toBe("CA valid (days)");
  expect(title("network", "network_subnet")).toBe("Subnet");
});
