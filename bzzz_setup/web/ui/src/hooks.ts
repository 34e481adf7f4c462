import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useReducer, useRef, useState, useSyncExternalStore } from "react";
import { api, type Draft, type News, Refused, type RunEvent } from "./api";
import { begun, type Live, older, take, told } from "./live";
import { at, base, socketAt } from "./place";

// --- where one is: the address's path ---

const moved = new EventTarget();
window.addEventListener("popstate", () => moved.dispatchEvent(new Event("move")));

export function go(path: string): void {
  if (at(path) === location.pathname + location.hash) return;
  history.pushState(null, "", at(path));
  moved.dispatchEvent(new Event("move"));
}

function onMove(told: () => void): () => void {
  moved.addEventListener("move", told);
  return () => moved.removeEventListener("move", told);
}

export const usePath = () => useSyncExternalStore(onMove, () => location.pathname.slice(base.length) || "/");
/** The option whose field is asked for. */
export const useWanted = () => useSyncExternalStore(onMove, () => location.hash.slice(1));

// --- what is on the server ---

export const useWelcome = () => useQuery({ queryKey: ["welcome"], queryFn: api.welcome, refetchInterval: ({ state }) => (state.error ? 3_000 : false) });
export const useSchema = () => useQuery({ queryKey: ["schema"], queryFn: api.schema, staleTime: Infinity });
export const useDraft = () => useQuery({ queryKey: ["draft"], queryFn: api.draft, refetchInterval: 10_000 });
export const useNodes = () => useQuery({ queryKey: ["nodes"], queryFn: api.nodes });
export const useChecks = () => useQuery({ queryKey: ["checks"], queryFn: api.checks });
export const useRuns = () => useQuery({ queryKey: ["runs"], queryFn: api.runs, refetchInterval: 5_000 });

/** Values that were typed go to the server after a moment, together; `conflict` names who was first where somebody else has changed the same. */
export function useChange() {
  const queries = useQueryClient();
  const waiting = useRef<Record<string, unknown>>({});
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const [conflict, setConflict] = useState<string | null>(null);
  const sending = useMutation({
    // One after the other, each upon what the one before has left.
    scope: { id: "draft" },
    mutationFn: async (changes: Record<string, unknown>) => {
      const base = queries.getQueryData<Draft>(["draft"])?.revision ?? 0;
      return api.change(base, changes);
    },
    onSuccess: (draft) => {
      setConflict(null);
      queries.setQueryData(["draft"], draft);
    },
    onError: async (error) => {
      if (error instanceof Refused && error.status === 409) setConflict(Object.values(error.changes)[0]?.by ?? "");
      await queries.invalidateQueries({ queryKey: ["draft"] });
    },
  });
  const { mutateAsync } = sending;
  const sent = useRef(Promise.resolve());
  /** Sends what was typed; whoever waits for it goes on when the server has it, or has refused it. */
  const flush = useCallback(() => {
    clearTimeout(timer.current);
    const changes = waiting.current;
    waiting.current = {};
    if (Object.keys(changes).length) {
      sent.current = mutateAsync(changes).then(
        () => undefined,
        () => undefined,
      );
    }
    return sent.current;
  }, [mutateAsync]);
  const change = useCallback(
    (changes: Record<string, unknown>) => {
      Object.assign(waiting.current, changes);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => void flush(), 250);
    },
    [flush],
  );
  // Nothing that was typed is lost by going elsewhere.
  useEffect(() => () => void flush(), [flush]);
  /** Whether nothing that was typed has yet to be sent. */
  const settled = useCallback(() => !Object.keys(waiting.current).length, []);
  return { change, flush, settled, conflict, error: sending.error, pending: sending.isPending };
}

// --- the cluster ---

/** Events that are in the page at a time. */
const EVENTS = 100;

export interface Now {
  cluster: NonNullable<NonNullable<News["data"]>["cluster"]> | null;
  /** Newest first. */
  events: News[];
  /** Why nothing is heard, where that is so. */
  away: string | null;
}

/** The cluster as it is, and what happens in it, for as long as the page is shown. */
export function useNow(): Now {
  const [now, tell] = useReducer((before: Now, news: News): Now => {
    if (news.type === "snapshot") return { ...before, cluster: news.data?.cluster ?? before.cluster, away: null };
    if (news.type === "away") return { ...before, away: news.data?.message ?? "" };
    if (news.type === "quiet" || news.type === "resumed" || before.events.some((one) => one.id === news.id)) return before;
    return { ...before, events: [news, ...before.events].slice(0, EVENTS) };
  }, { cluster: null, events: [], away: null });
  useEffect(() => {
    let socket: WebSocket;
    let timer: ReturnType<typeof setTimeout>;
    const connect = () => {
      socket = new WebSocket(socketAt("/api/v1/cluster/socket"));
      socket.onmessage = (message) => tell(JSON.parse(message.data as string) as News);
      socket.onclose = () => (timer = setTimeout(connect, 3000));
    };
    connect();
    return () => {
      socket.onclose = null;
      clearTimeout(timer);
      socket.close();
    };
  }, []);
  return now;
}

// --- a run ---

/** Milliseconds for which events are gathered. */
const FRAME = 16;
/** Events that are asked for at a time, of those before the page came. */
const BEFORE = 500;

/** A run as it goes: what has been up to now, and then each event as it comes, whatever happens to the connection. `more` has the log begin earlier. */
export function useRun(name: string): { live: Live | null; connected: boolean; more: (first: number) => Promise<void> } {
  const queries = useQueryClient();
  const [live, setLive] = useState<Live | null>(null);
  const [connected, setConnected] = useState(true);
  const more = useCallback(
    async (first: number) => {
      const after = Math.max(0, first - 1 - BEFORE);
      if (first <= 1) return;
      const { events } = await api.events(name, after, first - 1 - after);
      setLive((before) => before && older(before, events));
    },
    [name],
  );
  useEffect(() => {
    let socket: WebSocket | null = null;
    let timer: ReturnType<typeof setTimeout>;
    // The last event that was heard; none where the page has just come.
    let heard: number | null = null;
    let over = false;
    // Thousands at once, as after a pause, are drawn once.
    let waiting: RunEvent[] = [];
    const draw = () => {
      const events = waiting;
      waiting = [];
      setLive((before) => before && events.reduce(take, before));
    };
    const connect = async () => {
      try {
        const report = await api.run(name);
        if (over) return;
        const first = heard === null;
        setLive((before) => (first || !before ? begun(report) : told(before, report)));
        heard ??= report.last;
        setConnected(true);
        if (!report.running && heard >= report.last) return;
        // From what was heard on, which may be long before the report: the log is to have no hole.
        socket = new WebSocket(socketAt(`/api/v1/runs/${name}/socket?after=${heard}`));
        socket.onmessage = (message) => {
          const event = JSON.parse(message.data as string) as RunEvent;
          heard = event.id;
          if (waiting.push(event) === 1) setTimeout(draw, FRAME);
        };
        socket.onclose = (closed) => {
          if (over) return;
          if (closed.code === 1000) {
            void queries.invalidateQueries();
            void connect();
          } else {
            setConnected(false);
            timer = setTimeout(() => void connect(), 1000);
          }
        };
      } catch (error) {
        if (over) return;
        setConnected(false);
        if (error instanceof Refused && error.status === 401) void queries.invalidateQueries({ queryKey: ["welcome"] });
        timer = setTimeout(() => void connect(), 2000);
      }
    };
    void connect();
    return () => {
      over = true;
      clearTimeout(timer);
      socket?.close();
    };
  }, [name, queries]);
  return { live, connected, more };
}
