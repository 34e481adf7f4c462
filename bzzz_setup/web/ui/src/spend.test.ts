import { expect, test } from "vitest";
import type { Spend } from "./api";
import { stacks, totals, usd } from "./spend";

const row = (start: string, model: string, cost_nano: number, calls = 1) => ({ start, model, cost_nano, calls, tokens_in: 10, tokens_out: 5, tokens_cached: 0, latency_ms: 100 * calls, held_nano: 0 });
const spend = (rows: Spend["rows"]) => ({ by: "model", per: "day", rows }) as Spend;

test("columns are stacked by the most expensive, the rest together, and lose nothing", () => {
  const rows = [..."abcdefgh"].flatMap((name, place) => [row("2026-11-02", name, 10 - place), row("2026-11-01", name, 10 - place)]);
  const found = stacks(spend(rows), "others", "-");
  expect(found.names).toEqual(["a", "b", "c", "d", "e", "others"]);
  expect(found.columns.map((column) => column.start)).toEqual(["2026-11-01", "2026-11-02"]);
  expect(found.columns[0]!.parts.map((part) => part.nano)).toEqual([10, 9, 8, 7, 6, 5 + 4 + 3]);
  expect(found.columns.reduce((sum, column) => sum + column.nano, 0)).toBe(rows.reduce((sum, one) => sum + one.cost_nano, 0));
  expect(found.most).toBe(52);
});

test("what has no name, no row and no cost", () => {
  expect(stacks(spend([]), "others", "-")).toEqual({ names: [], columns: [], most: 0 });
  expect(stacks(spend([row("2026-11-01", "", 0)]), "others", "-").names).toEqual(["-"]);
});

test("totals weigh the latency by calls", () => {
  const [total] = totals(spend([row("2026-11-01", "a", 5, 1), row("2026-11-02", "a", 5, 3)]), "-");
  expect(total).toEqual({ name: "a", calls: 4, tokens: 30, nano: 10, latency: 250 });
});

test("money", () => {
  expect([0, 1_234_560_000, 50_000_000, 12_300, 4_900, -4, 99_999_999].map(usd)).toEqual(["0.00 USD", "1.23 USD", "0.05 USD", "0.000012 USD", "0.0000049 USD", "-0.000000004 USD", "0.10 USD"]);
});
