import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Draft } from "./api";
import { Outbox } from "./outbox";
import { Refused } from "./refused";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

type Answer = Error | "well" | Promise<Draft>;

/** A server that answers as it is told to, one after the other, and then well; `got` is what it was sent. */
function server(...answers: Answer[]) {
  let revision = 1;
  const got: [number, Record<string, unknown>][] = [];
  const outbox = new Outbox({
    revision: () => revision,
    send: async (base, changes) => {
      got.push([base, changes]);
      const answer = answers.shift() ?? "well";
      if (answer instanceof Error) throw answer;
      return answer === "well" ? ({ revision: base + 1 } as Draft) : answer;
    },
    has: async (draft) => (revision = draft?.revision ?? revision + 10),
  });
  return { outbox, got, newer: () => (revision += 5) };
}

const gone = new TypeError("Failed to fetch");

test("what is typed goes together, after a moment", async () => {
  const { outbox, got } = server();
  outbox.change({ a: "3" });
  await vi.advanceTimersByTimeAsync(40);
  outbox.change({ a: "30", b: 1 });
  await vi.advanceTimersByTimeAsync(40);
  expect(got).toEqual([]);
  await vi.advanceTimersByTimeAsync(20);
  expect(got).toEqual([[1, { a: "30", b: 1 }]]);
  expect(outbox.unsent.values).toEqual({});
});

test("what found nobody is sent again, with what was typed since, upon what was seen then", async () => {
  const { outbox, got, newer } = server(gone, new Refused(401, "Sign in."), new Refused(503, "Not now."));
  outbox.change({ a: 1 });
  await outbox.flush();
  expect(outbox.unsent).toMatchObject({ values: { a: 1 }, away: true });
  newer();
  outbox.change({ b: 2 });
  await vi.advanceTimersByTimeAsync(300);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(outbox.unsent.away).toBe(true);
  await vi.advanceTimersByTimeAsync(3_000);
  const both = [1, { a: 1, b: 2 }];
  expect(got).toEqual([[1, { a: 1 }], both, both, both]);
  expect(outbox.unsent).toEqual({ values: {}, away: false, refused: null, conflict: null });
});

test("of what conflicts the other's value stands and is told; the rest is sent", async () => {
  const { outbox, got } = server(new Refused(409, "Changed", undefined, { a: { by: "berta", value: 9 } }));
  outbox.change({ a: 1, b: 2 });
  await outbox.flush();
  expect(got).toEqual([[1, { a: 1, b: 2 }], [11, { b: 2 }]]);
  expect(outbox.unsent).toMatchObject({ values: {}, conflict: { by: "berta", paths: ["a"] }, refused: null });
  outbox.change({ b: 3 });
  expect(outbox.unsent.conflict, "until it is typed again").not.toBeNull();
  outbox.change({ a: 1 });
  expect(outbox.unsent.conflict).toBeNull();
  await outbox.flush();
  expect(got.at(-1)).toEqual([12, { a: 1, b: 3 }]);
});

test("one that is refused takes no other with it, and is told", async () => {
  const no = new Refused(422, "A private key.", [{ option: "x", message: "A private key.", remedy: "Another." }]);
  const { outbox, got } = server(no);
  outbox.change({ "options/x": 1, "options/y": 2 });
  await outbox.flush();
  expect(got).toEqual([[1, { "options/x": 1, "options/y": 2 }], [11, { "options/y": 2 }]]);
  expect(outbox.unsent).toMatchObject({ values: {}, refused: no });
  outbox.change({ "options/x": 3 });
  await outbox.flush();
  expect(outbox.unsent.refused).toBeNull();
});

test("what is refused is not tried for ever, and why is told", async () => {
  const no = new Refused(422, "There is nothing at 'x'.");
  const { outbox, got } = server(no);
  outbox.change({ x: 1 });
  await outbox.flush();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(got.length).toBe(1);
  expect(outbox.unsent).toMatchObject({ values: {}, away: false, refused: no });
});

test("what is typed while the same is on its way is not taken for sent", async () => {
  let answer = (_draft: Draft) => {};
  const { outbox, got } = server(new Promise<Draft>((done) => (answer = done)));
  outbox.change({ a: 1, b: 1 });
  const first = outbox.flush();
  outbox.change({ a: 2 });
  answer({ revision: 2 } as Draft);
  await first;
  expect(outbox.unsent.values).toEqual({ a: 2 });
  await vi.advanceTimersByTimeAsync(300);
  expect(got.at(-1)).toEqual([2, { a: 2 }]);
});
