/** Of many machines and rows, as many are there at first. */
export const FIRST = 12;

const ACRONYMS = /^(acme|api|ca|cidr|cpu|dn|dns|eab|gpu|http|https|id|ldap|mcp|mib|mtu|oidc|sans|ssh|tls|urls?|ui)$/;

/** An option's name in words: without its role, acronyms in capitals. */
export function title(role: string, name: string): string {
  const words = name.replace(`${role}_`, "").split("_").map((word) => (ACRONYMS.test(word) ? word.toUpperCase() : word));
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
