import { expect, test } from "vitest";
import type { Draft, Seen } from "./api";
import { among, axis, choices, portRows, span } from "./drawing";

const draft = (more: Partial<Draft>) => ({ nodes: { n1: {}, n2: {}, n3: {} }, problems: [], detected: {}, facts_of: 1, ports: [], ...more }) as unknown as Draft;
const taken = { node: "n1", program: "nginx", pid: 7, unit: "nginx.service" };
const port = { option: "service_port", port: 8080, protocol: "tcp", nodes: ["n1", "n2", "n3"], taken: [] as (typeof taken)[], own: [] as string[] };
const card = { primary: "", kind: "physical", state: "up", addresses: "", speed: "", mtu: "1500", mac: "", driver: "" };

test("networks are told apart by their addresses, of IPv6 too", () => {
  expect(span("10.0.0.0/8")).toEqual([10n << 24n, 11n << 24n]);
  expect(span("fd00::/64")).toEqual([(1n << 128n) + (0xfd00n << 112n), (1n << 128n) + (0xfd00n << 112n) + (1n << 64n)]);
  expect(span("::ffff:10.0.0.0/104")[0]).toBe((1n << 128n) + (0xffffn << 32n) + (10n << 24n));
  expect(span("1:2:3:4:5:6:7:8/128")[0] & 0xffffn).toBe(8n);
});

test("on the axis a part lies within its whole, and what is apart lies apart", () => {
  const [whole, part, apart, six] = axis(["10.0.0.0/8", "10.9.0.0/16", "172.17.0.0/16", "fd00::/64"]);
  const end = (bar: { left: number; width: number } | undefined) => bar!.left + bar!.width;
  expect(whole!.left).toBe(0);
  expect(part!.left).toBeGreaterThan(whole!.left);
  expect(end(part)).toBeLessThan(end(whole));
  expect(part!.width).toBeGreaterThan(5);
  expect(apart!.left).toBeGreaterThan(end(whole));
  expect(six!.left).toBeGreaterThan(end(apart));
  expect(end(six)).toBeCloseTo(100);
  expect(axis(["10.0.0.0/8"])).toEqual([{ left: 0, width: 100 }]);
  expect(axis([])).toEqual([]);
});

test("a port that somebody else has is a conflict, told once for all machines that have the same", () => {
  const problem = { option: "service_port", value: 8080, message: "Port 8080 is taken by nginx.", remedy: "Choose another." };
  const [row] = portRows(draft({ problems: [problem, { ...problem, value: 9090 }], ports: [{ ...port, taken: [taken, { ...taken, node: "n2", pid: 8 }] }] }));
  expect(row).toMatchObject({ state: "conflict", nodes: "all machines", taken: ["nginx, nginx.service on n1, n2"], problems: [problem] });
  expect(portRows(draft({ ports: [{ ...port, taken: [taken] }] }))[0]).toMatchObject({ state: "conflict", taken: ["nginx, nginx.service (pid 7) on n1"] });
});

test("a port is free only where somebody has looked, and a warning is no conflict", () => {
  const warning = { severity: "warning" as const, option: "service_port", message: "may be taken", remedy: "" };
  expect(portRows(draft({ ports: [port] }))[0]?.state).toBe("free");
  expect(portRows(draft({ ports: [port], facts_of: null }))[0]?.state).toBe("unknown");
  expect(portRows(draft({ ports: [{ ...port, own: ["n1", "n3"] }] }))[0]).toMatchObject({ state: "own", taken: ["the cluster itself, on n1, n3"] });
  expect(portRows(draft({ ports: [port], problems: [warning] }))[0]?.state).toBe("warning");
});

test("many machines in few words", () => {
  expect(among(["a", "b"], 2)).toBe("all machines");
  expect(among(["a"], 1)).toBe("a");
  expect(among(["a", "b", "c", "d", "e", "f"], 200)).toBe("a, b, c and 3 more");
});

test("of many machines an interface is offered once, those first that are taken by themselves", () => {
  const machine = (...names: string[]) => ({ interfaces: names.map((name) => ({ ...card, name, primary: name === "eno1" ? "primary" : "" })) }) as unknown as Seen;
  const seen = { n1: machine("docker0", "eno1"), n2: machine("docker0", "eno1"), n3: machine("docker0", "eth7") };
  const found = choices(draft({ detected: { network_interface: { n1: "eno1", n3: "eth7" } } }), seen, ["n1", "n2", "n3"]);
  expect(found.map((one) => [one.name, one.primary])).toEqual([["eno1", 2], ["eth7", 1], ["docker0", 0]]);
  expect(found[0]?.details).toBe("on 2 of 3 machines · up · MTU 1500 · physical");
  expect(choices(draft({}), seen, ["n1"]).map((one) => one.details)).toEqual(Array(2).fill("up · MTU 1500 · physical"));
});
