import { expect, test } from "vitest";
import type { Fit, Place } from "./api";
import { PARTS, bytesOf, rows, segments, size } from "./fit";

const GIB = 2 ** 30;
const place = (weights: number, cache: number, overhead: number, reserved: number, free: number, models: string[] = []): Place => ({
  models,
  weights_bytes: weights * GIB,
  cache_bytes: cache * GIB,
  overhead_bytes: overhead * GIB,
  reserved_bytes: reserved * GIB,
  free_bytes: free * GIB,
  total_bytes: (weights + cache + overhead + reserved + free) * GIB,
});

test("a bar has all of its place, in order, and nothing of what is not there", () => {
  const found = segments(place(8, 2, 0, 1, 5));
  expect(found.map(({ part, left, width }) => [part, left, width])).toEqual([["weights", 0, 50], ["cache", 50, 12.5], ["reserved", 62.5, 6.25], ["free", 68.75, 31.25]]);
  expect(segments(place(0, 0, 0, 0, 0))).toEqual([]);
  for (const one of [place(0.3, 0.1, 0.7, 9, 1), place(1, 1, 1, 1, 0)]) {
    expect(segments(one).reduce((sum, { width }) => sum + width, 0)).toBeCloseTo(100);
    expect(PARTS.reduce((sum, part) => sum + bytesOf(one, part), 0)).toBeCloseTo(one.total_bytes);
  }
});

test("no bar is longer than its place, whatever the machine tells", () => {
  const odd = { ...place(10, 0, 0, 4, 0), total_bytes: 12 * GIB };
  expect(segments(odd).reduce((sum, { width }) => sum + width, 0)).toBe(100);
});

test("sizes are read at a glance", () => {
  expect([0, 1, 50 * 2 ** 20, GIB, 23.94 * GIB].map(size)).toEqual(["0", "1 MiB", "50 MiB", "1.0 GiB", "23.9 GiB"]);
});

test("memory is shown where something is in it, or where there is nothing else", () => {
  const room = (gpus: number, models: string[]) => ({
    gpus: Array.from({ length: gpus }, (_, at) => ({ ...place(1, 0, 0, 0, 1), uuid: `GPU-${at}`, name: "A4000" })),
    memory: place(0, 0, 0, 2, 6, models),
    disk: { path: "/", taken_bytes: 0, free_bytes: 0 },
    left_out: [],
  });
  const fit: Fit = { nodes: { n1: room(2, []), n2: room(1, ["qwen3:8b"]), n3: room(0, []) }, placed: [], refused: [], unknown: [] };
  expect(rows(fit).map(({ node, uuid }) => [node, uuid])).toEqual([["n1", "GPU-0"], ["n1", "GPU-1"], ["n2", "GPU-0"], ["n2", null], ["n3", null]]);
});
