import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, useCallback, useContext, useEffect, useReducer, useRef, useState, useSyncExternalStore } from "react";
import { api, type Draft, type News, Refused, type RunEvent } from "./api";
import { begun, type Live, older, take, told } from "./live";
import { Outbox, type Unsent } from "./outbox";
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

let outbox: Outbox | undefined;

/** Values that were typed, on their way to the server. There is one for the page: whoever goes elsewhere in it loses nothing. */
export function useOutbox(): Outbox {
  const queries = useQueryClient();
  return (outbox ??= new Outbox({
    revision: () => queries.getQueryData<Draft>(["draft"])?.revision ?? 0,
    send: (base, changes) =>
      api.change(base, changes).catch((error: unknown) => {
        if (error instanceof Refused && error.status === 401) void queries.invalidateQueries({ queryKey: ["welcome"] });
        throw error;
      }),
    has: async (draft) => {
      if (!draft) return queries.invalidateQueries({ queryKey: ["draft"] });
      // An answer that is on its way knows nothing of it yet.
      await queries.cancelQueries({ queryKey: ["draft"] });
      return queries.setQueryData(["draft"], draft);
    },
  }));
}

export function useUnsent(): Unsent {
  const { listen, now } = useOutbox();
  return useSyncExternalStore(listen, now);
}

/** What is on its way to these paths: another only when that is, so that a key in one form does not draw the others. */
export function useUnsentAt(paths: string[]): Unsent {
  const { listen, now } = useOutbox();
  const last = useRef<Unsent["values"]>({});
  const values = useSyncExternalStore(listen, () => {
    const all = now().values;
    const there = paths.filter((path) => path in all);
    const same = there.length === Object.keys(last.current).length && there.every((path) => path in last.current && last.current[path] === all[path]);
    if (!same) last.current = Object.fromEntries(there.map((path) => [path, all[path]]));
    return last.current;
  });
  const { away } = now();
  return { values, away, conflict: useSyncExternalStore(listen, () => now().conflict), refused: useSyncExternalStore(listen, () => now().refused) };
}

// --- the cluster ---

/** Events that are in the page at a time. */
const EVENTS = 100;
/** Milliseconds until it is asked again where nobody tells: longer each time. */
const WAIT = 3_000;
const LONGEST = 60_000;

export interface Now {
  cluster: NonNullable<NonNullable<News["data"]>["cluster"]> | null;
  /** Newest first. */
  events: News[];
  /** Why nothing is heard, where that is so. */
  away: string | null;
}

const NOTHING: Now = { cluster: null, events: [], away: null };
/** The cluster as it is, for every part of the page. */
export const NowContext = createContext(NOTHING);
export const useNow = () => useContext(NowContext);

/** The cluster as it is, and what happens in it, for as long as it is wanted. */
export function useWatch(wanted: boolean): Now {
  const [now, tell] = useReducer((before: Now, news: News): Now => {
    if (news.type === "snapshot") return { ...before, cluster: news.data?.cluster ?? before.cluster, away: null };
    if (news.type === "away") return { ...before, cluster: before.cluster && { ...before.cluster, current: false }, away: news.data?.message ?? before.away };
    if (news.type === "quiet" || news.type === "resumed" || before.events.some((one) => one.id === news.id)) return before;
    return { ...before, events: [news, ...before.events].slice(0, EVENTS) };
  }, NOTHING);
  useEffect(() => {
    if (!wanted) return;
    let socket: WebSocket;
    let timer: ReturnType<typeof setTimeout>;
    let wait = WAIT;
    const connect = () => {
      socket = new WebSocket(socketAt("/api/v1/cluster/socket"));
      socket.onmessage = (message) => {
        const news = JSON.parse(message.data as string) as News;
        if (news.type === "snapshot") wait = WAIT;
        tell(news);
      };
      socket.onclose = () => {
        tell({ type: "away" });
        timer = setTimeout(connect, wait);
        wait = Math.min(2 * wait, LONGEST);
      };
    };
    connect();
    return () => {
      socket.onclose = null;
      clearTimeout(timer);
      socket.close();
      tell({ type: "away" });
    };
  }, [wanted]);
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
