/** The wizard's REST interface, `/api/v1`: shapes as its OpenAPI description tells them. */
import { at } from "./place";
import { Refused } from "./refused";

export { Refused };

export interface Problem {
  severity?: "error" | "warning";
  option: string;
  value?: unknown;
  node?: string | null;
  message: string;
  remedy: string;
  step?: number;
}

export interface OptionSchema {
  type: string;
  title?: string;
  description: string;
  default?: unknown;
  enum?: unknown[];
  format?: string;
  items?: OptionSchema;
  properties?: Record<string, OptionSchema>;
  required?: string[];
  /** Of what has names that somebody chooses, what each is; `propertyNames` tells what the names are. */
  additionalProperties?: OptionSchema | false;
  propertyNames?: { title: string };
  minimum?: number;
  maximum?: number;
  writeOnly?: boolean;
}

export interface Role {
  name: string;
  title: string;
  description: string;
  essential: string[];
  /** What of it can be tried before it is applied. */
  tests: string[];
  schema: { type: "object"; properties: Record<string, OptionSchema>; required: string[] };
}

export interface Step {
  number: number;
  slug: string;
  title: string;
  roles: Role[];
}

export interface Machine {
  address: string;
  port: number;
  groups: string[];
  options: Record<string, unknown>;
}

export interface Draft {
  revision: number;
  cluster: string;
  nodes: Record<string, Machine>;
  options: Record<string, unknown>;
  secrets: Record<string, boolean>;
  changed: Record<string, { revision: number; by: string; at: number }>;
  problems: Problem[];
  /** Option to node to what it is where it is not set. */
  detected: Record<string, Record<string, unknown>>;
  /** When the machines were seen, in seconds since the epoch. */
  facts_of: number | null;
  /** The ports that the cluster is to listen on, and who listens there already. */
  ports: { option: string; port: number; protocol: string; nodes: string[]; taken: { node: string; program: string | null; pid: number | null; unit: string | null }[]; own: string[] }[];
  /** The cluster's networks, and which others its machines know. */
  networks: {
    subnets: string[];
    others: { network: string; interface: string; kind: string | null; gateway: string | null; severity: "error" | "warning" | null; nodes: string[] }[];
  };
  /** Paths of values that only Ansible can work out. */
  templates: string[];
  /** Option to where else it is set, in files that the form leaves alone; null is a secret's value. */
  elsewhere: Record<string, { file: string; value: unknown }[]>;
}

export interface Check {
  id: string;
  role?: string;
  title: string;
  node: string;
  status: "pass" | "fail" | "warn" | "skip";
  seen?: string;
  expected?: string;
  remedy?: string;
  step: number;
}

export interface Tally {
  changed: number;
  failed: boolean;
  seconds: number;
  hardware?: string;
}

export interface Report {
  run: string;
  command: string;
  cluster: string;
  started: number;
  seconds: number;
  exit_code: number;
  outcome: string;
  steps: { number: number; title: string; state: string; seconds: number; started: number; changed: number; nodes: Record<string, Tally> }[];
  nodes: Record<string, Tally>;
  changes: { step: number; node: string; role: string; kind: string; name: string; what: string }[];
  /** What a month would cost, in words. */
  forecast: string[];
  diffs: { step: number; node: string; role: string; before_header?: string; after_header?: string; before?: unknown; after?: unknown }[];
  checks: Check[];
  problems: Problem[];
  failures: { step: number; node: string; role: string; task: string; message: string; remedy: string | null }[];
  messages: { level: string; text: string }[];
  running: boolean;
  /** Whether it is to wait before its next step, and before which it does. */
  pausing: boolean;
  paused: number | null;
  last: number;
}

export interface RunSummary {
  run: string;
  command: string;
  started: number;
  seconds: number;
  exit_code: number;
  outcome: string;
  /** Its step, where it was to do one alone. */
  only: number[];
}

export interface RunEvent {
  id: number;
  at: number;
  event: "RunStarted" | "StepStarted" | "TaskStarted" | "TaskFinished" | "Paused" | "Resumed" | "Message" | "RunFinished";
  step?: number;
  node?: string;
  role?: string;
  task?: string;
  status?: string;
  seconds?: number;
  message?: string;
  text?: string;
  level?: string;
  changes?: { kind: string; name: string; what: string }[];
  checks?: Check[];
  problems?: Problem[];
  /** Why it failed, in words, and the remedy; null where it did not. */
  failure?: Report["failures"][number] | null;
  steps?: number[];
  interrupted?: boolean;
  returncode?: number;
}

/** How machines, or groups of many, reach each other: a map a layer. */
export interface Ways {
  sentence: string;
  labels: string[];
  size: number;
  layers: { name: string; title: string; same: string; rows: { label: string; cells: { text: string; heat: number | "self" | "none" | "gone" }[] }[] }[];
  odd: { status: "fail" | "warn" | "skip"; node: string; peer: string; why: string }[];
  more: number;
}

/** A node as it tells of itself; what another release tells may lack anything. */
export interface Member {
  name: string;
  address?: string;
  roles?: string[];
  health: "pass" | "warn" | "fail";
  primary: boolean;
  version?: string;
  checks?: { name: string; status: string; message: string }[];
  capabilities?: {
    os?: { id?: string; version?: string };
    cpu?: { threads?: number };
    memory_total_mib?: number;
    gpus?: { model?: string; memory_total_mib?: number; health?: string }[];
    ollama?: { models?: string[] };
  };
}

/** A line of `/cluster/socket`: what is now, what has happened, or why neither can be told. */
export interface News {
  id?: string;
  time?: string;
  type: "snapshot" | "resumed" | "quiet" | "away" | "cluster" | "node" | "alert" | "run";
  event?: string;
  node?: string | null;
  data?: { cluster?: { current: boolean; reason: string | null; primary: string | null; members: Member[] }; message?: string } & Record<string, unknown>;
}

export interface FoundMachines {
  machines: { name: string; address: string; port: number; keys: { kind: string; fingerprint: string }[] }[];
  known: number;
  known_hosts: string;
  warnings: Problem[];
}

export interface Me {
  name: string;
  kind: string;
  role: string;
  scopes: string[];
}

/** An issued token, which is told once and not here. */
export interface Token {
  id: string;
  name: string;
  role: string;
  scopes: string[];
  expires: string;
  expired: boolean;
}

/** What is told before anybody has signed in. */
export interface Welcome {
  claimed: boolean;
  me: Me | null;
  ways: ("password" | "oidc")[];
  /** What the OpenID Connect provider is called. */
  provider: string | null;
  /** Why the last sign-in by it was no use. */
  refused: string | null;
}

/** A machine as the last run has seen it, in the words of the report's page. */
export interface Seen {
  hardware: string;
  interfaces: { name: string; primary: string; kind: string; state: string; addresses: string; speed: string; mtu: string; mac: string; driver: string }[];
  gpus: Gpu[];
}

export interface Gpu {
  name: string;
  model: string;
  memory: { percent: number; text: string; full: boolean } | null;
  health: string;
  status: string;
  details: { label: string; value: string }[];
}

/** How the GPUs of machines that are alike lie: places in a picture's coordinates. */
export interface Topology {
  where: string;
  nodes: string[];
  models: string;
  width: number;
  height: number;
  domains: { x: number; y: number; width: number; height: number; label: string }[];
  gpus: { x: number; y: number; width: number; height: number; middle: number; name: string; memory: string; model: string; whole: string }[];
  arcs: { path: string; x: number; y: number; label: string }[];
  fabrics: { y: number; left: number; width: number; stubs: number[]; bottom: number; label: string }[];
  switches: { left: number; right: number; y: number; ends: number[]; label: string }[];
  between: { left: number; right: number; y: number; ends: number[] } | null;
  links: { a: string; b: string; path: string; meaning: string }[];
}

/** What calls have cost, in nano-USD, by hour or day. */
export interface Spend {
  gateway: string;
  time_zone: string;
  by: "model" | "task" | "project" | "user";
  per: "hour" | "day";
  calls: number;
  nano: number;
  held_nano: number;
  rows: ({ start: string; calls: number; tokens_in: number; tokens_out: number; tokens_cached: number; latency_ms: number; cost_nano: number; held_nano: number } & Partial<Record<"model" | "task" | "project" | "user", string>>)[];
  caching: { tokens_in: number; tokens_cached: number };
  month: { spent_nano: number; expected_nano: number };
  budgets: { scope: string; period: string; limit_nano: number; spent_nano: number; held_nano: number }[];
  recommendations: { task: string; model: string; cost_nano: number; other: string; other_nano: number }[];
  idle: { node: string; gpus: string }[];
}

/** A GPU, or a machine's memory: who would have what of it. */
export interface Place {
  models: string[];
  total_bytes: number;
  weights_bytes: number;
  cache_bytes: number;
  overhead_bytes: number;
  reserved_bytes: number;
  free_bytes: number;
}

/** Where the models would go, what fits nowhere, and of what too little is known. */
export interface Fit {
  nodes: Record<string, { gpus: (Place & { uuid: string; name: string })[]; memory: Place; disk: { path: string; taken_bytes: number; free_bytes: number }; left_out: string[] }>;
  placed: { model: string; replica: number; node: string; why: string }[];
  refused: { model: string; replica: number; node: string | null; why: string; remedy: string }[];
  unknown: { model: string; why: string; remedy: string }[];
}

async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(at(`/api/v1${path}`), {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? null : JSON.stringify(body),
  });
  const text = await answer.text();
  const found = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refused(answer.status, found?.detail ?? answer.statusText, found?.problems, found?.changes);
  return found as T;
}

export const api = {
  welcome: () => ask<Welcome>("GET", "/welcome"),
  /** Where a browser goes, as a page, to sign in by the provider. */
  provider: at("/api/v1/sign-in/oidc"),
  claim: (token: string, name: string, password: string) => ask<Me>("POST", "/claim", { token, name, password }),
  signIn: (user: string, password: string) => ask<Me>("POST", "/session", { user, password }),
  signInBy: (token: string) => ask<Me>("POST", "/session", { token }),
  signOut: () => ask<null>("DELETE", "/session"),
  schema: () => ask<{ steps: Step[] }>("GET", "/schema"),
  draft: () => ask<Draft>("GET", "/draft"),
  change: (base: number, changes: Record<string, unknown>) => ask<Draft>("PATCH", "/draft", { base, changes }),
  discard: (base: number) => ask<Draft>("DELETE", `/draft?base=${base}`),
  checks: () => ask<{ run: string | null; at: number | null; checks: Check[] }>("GET", "/checks"),
  check: () => ask<{ problems: Problem[] }>("POST", "/check"),
  test: (what: string) => ask<{ told: string }>("POST", `/tests/${what}`),
  fit: () => ask<Fit>("POST", "/models/plan"),
  takeIn: (base: number, declaration: string) => ask<{ changed: string[]; left: string[]; secrets_missing: string[] }>("POST", "/import", { base, declaration }),
  cost: (by: Spend["by"], since?: string) => ask<Spend>("GET", `/cost?by=${by}${since ? `&since=${since}` : ""}`),
  nodes: () => ask<{ seen: number | null; nodes: Record<string, Seen>; topologies: Topology[] }>("GET", "/nodes"),
  ownPassword: (old: string, password: string) => ask<unknown>("PATCH", "/me", { old, password }),
  users: () => ask<{ users: { name: string; role: string; created: string; locked: boolean }[] }>("GET", "/users"),
  addUser: (name: string, role: string, password: string) => ask<unknown>("POST", "/users", { name, role, password }),
  removeUser: (name: string) => ask<null>("DELETE", `/users/${encodeURIComponent(name)}`),
  changeUser: (name: string, change: { role?: string; password?: string; locked?: false }) => ask<unknown>("PATCH", `/users/${encodeURIComponent(name)}`, change),
  tokens: () => ask<{ tokens: Token[] }>("GET", "/tokens"),
  issueToken: (name: string, role: string, days: number) => ask<Token & { token: string }>("POST", "/tokens", { name, role, days }),
  revokeToken: (id: string) => ask<null>("DELETE", `/tokens/${id}`),
  keys: () => ask<{ user: string; keys: { name: string; kind: string; comment: string; fingerprint: string; agent: boolean; locked: boolean }[] }>("GET", "/keys"),
  find: (nodes: string, announced: boolean, port: number) => ask<FoundMachines>("POST", "/find", { nodes, announced, port }),
  take: (body: unknown) => ask<unknown>("POST", "/machines", body),
  start: (command: string, steps: number[] = [], base?: number) => ask<{ run: string }>("POST", "/runs", { command, steps, base: base ?? null }),
  runs: () => ask<{ running: { pid: number; command: string } | null; runs: RunSummary[] }>("GET", "/runs"),
  run: (name: string) => ask<Report>("GET", `/runs/${name}`),
  events: (name: string, after: number, most: number) => ask<{ events: RunEvent[] }>("GET", `/runs/${name}/events?after=${after}&most=${most}`),
  ways: (name: string) => ask<{ ways: Ways | null }>("GET", `/runs/${name}/ways`),
  pause: (name: string, pausing: boolean) => ask<{ pausing: boolean }>("PUT", `/runs/${name}/pause`, { pausing }),
  stop: (name: string) => ask<{ asked: boolean }>("DELETE", `/runs/${name}`),
};
