import { expect, test } from "vitest";
import type { Report, RunEvent } from "./api";
import { lines } from "./changed";
import { begun, LINES, line, type Live, older, take, told } from "./live";
import { title } from "./words";

const step = (number: number) => ({ number, title: `${number}`, state: "waiting", seconds: 0, started: 0, changed: 0, nodes: {} });
const report = { run: "r", command: "apply", started: 100, seconds: 0, steps: [step(1), step(2)], nodes: {}, checks: [], failures: [], problems: [], last: 1, running: true } as unknown as Report;
const all = (...events: Partial<RunEvent>[]): Live => events.reduce<Live>((live, event, place) => take(live, { id: place + 2, at: 101 + place, ...event } as RunEvent), begun(report));

const message = (id: number) => ({ id, at: 100 + id, event: "Message", level: "warning", text: `${id}` }) as RunEvent;

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
  const check = (status: string) => [{ id: "c", node: "n1", title: "c", status, step: 1 }] as never;
  const live = all({ event: "TaskFinished", step: 1, node: "n1", status: "ok", checks: check("fail") }, { event: "TaskFinished", step: 1, node: "n1", status: "ok", checks: check("pass") });
  expect(live.report.checks.map((one) => [one.node, one.status])).toEqual([["n1", "pass"]]);
});

test("a log of any length stays in bounds, and what was skipped is no line", () => {
  let live = begun({ ...report, last: 0 });
  for (let id = 1; id <= LINES + 50; id++) live = take(live, { id, at: id, event: "Message", level: "warning", text: `${id}` });
  expect(live.lines.length).toBe(LINES);
  expect(live.lines.at(-1)?.text).toBe(`${LINES + 50}`);
  expect([live.first, live.heard]).toEqual([51, LINES + 50]);
  const asked = older(live, [message(49), message(50)]);
  expect([asked.first, asked.lines.length, asked.lines[0]?.text]).toEqual([49, LINES + 2, "49"]);
  expect(older(asked, [message(49), message(50)]), "a page that comes twice").toBe(asked);
  expect(older(asked, [message(30)]), "a page that leaves a hole").toBe(asked);
  expect(take(asked, message(LINES + 51)).lines.length, "what was asked for has room").toBe(LINES + 2);
  expect(line({ id: 1, at: 1, event: "TaskFinished", status: "skipped" })).toBeNull();
});

test("the log is whole and tells nothing twice, whatever happens to the connection", () => {
  const texts = (live: Live) => live.lines.map((one) => one.text);
  const changed = (id: number) => ({ id, at: 100 + id, event: "TaskFinished", step: 1, node: "n1", task: `${id}`, status: "changed" }) as RunEvent;
  let live = [message(2), changed(3)].reduce(take, begun(report));
  // Of 4 and 5 nothing was heard; the report knows of them, and what they have changed.
  const ahead = { ...report, last: 5, steps: [{ ...step(1), changed: 3 }, step(2)] } as Report;
  live = told(live, ahead);
  expect(texts(live)).toEqual(["2", "3 — changed"]);
  live = [changed(3), changed(4), changed(5), changed(6)].reduce(take, live);
  expect(texts(live)).toEqual(["2", ...[3, 4, 5, 6].map((id) => `${id} — changed`)]);
  expect(live.report.steps[0]?.changed, "and counts once").toBe(4);
  expect(told(live, ahead), "a report that is late").toBe(live);
  live = told(live, { ...ahead, last: 7, running: false });
  live = take(live, message(7));
  expect(texts(live).at(-1)).toBe("7");
  expect([live.report.running, live.lines.length]).toEqual([false, 6]);
});

test("what has failed is told at once, with its remedy", () => {
  const failure = { step: 1, node: "n1", role: "network", task: "look", message: "No such bridge.", remedy: "Make it." };
  const problem = { option: "network_bridge", message: "There is none.", remedy: "Make it.", node: "n1" };
  const live = all(
    { event: "TaskFinished", step: 1, node: "n1", task: "look", status: "failed", message: "x", failure, problems: [problem] },
    { event: "TaskFinished", step: 1, node: "n2", task: "look", status: "failed", message: "x", failure: { ...failure, node: "n2" }, problems: [{ ...problem, node: "n2" }] },
    { event: "TaskFinished", step: 1, node: "n3", task: "look", status: "ok", failure: null },
  );
  expect(live.report.running).toBe(true);
  expect(live.report.failures).toEqual([failure, { ...failure, node: "n2" }]);
  expect(live.report.problems, "of all machines once").toEqual([problem]);
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
