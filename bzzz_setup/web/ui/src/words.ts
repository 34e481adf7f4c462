import { t } from "./texts";

/** Of many machines and rows, as many are there at first. */
export const FIRST = 12;

const WORDS: Record<string, string> = { mib: "MiB", mib_per_second: "MiB/s", openai: "OpenAI", ollama: "Ollama", usd: "USD", email: "e-mail", websocket: "WebSocket", sans: "SANs", urls: "URLs" };
const ACRONYMS = /^(acme|api|ca|ci|cidr|cpu|dn|dns|eab|gpu|http|https|id|kv|ldap|mcp|mtu|oidc|ram|smtp|ssh|tls|ui|url|vram)$/;
/** What stands last in a name where it says in what a number is. */
const UNITS = /_(mib|mib_per_second|usd|percent|seconds|minutes|hours|days)$/;

export const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** An option's name in words: without its role, acronyms in capitals, its unit in parentheses. */
export function title(role: string, name: string): string {
  const own = role && name.startsWith(`${role}_`) ? name.slice(role.length + 1) : name;
  const unit = UNITS.exec(own)?.[1] ?? "";
  const text = own.replace(UNITS, "").split("_").map((word) => WORDS[word] ?? (ACRONYMS.test(word) ? word.toUpperCase() : word)).join(" ");
  return capital(text) + (unit ? ` (${WORDS[unit] ?? unit})` : "");
}

/** A time of a run or an event: seconds since the epoch, or as text. */
export function when(time: number | string): string {
  return new Date(typeof time === "number" ? time * 1000 : time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

export const day = (time: string) => new Date(time).toLocaleDateString([], { dateStyle: "medium" });

/** By their names, numbers in them as numbers: node2 comes before node10. */
export const naturally = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

const SINGULAR: Record<string, string> = { coordinators: "coordinator", workers: "worker" };

/** What a machine is in the cluster: of its groups, or as it tells itself. */
export function rolesOf(groups: string[] = [], primary = false): string {
  return groups.map((group) => SINGULAR[group] ?? group).map((role) => (primary && role === "coordinator" ? t.primaryCoordinator : role)).join(", ");
}
