/** Where the wizard is: nothing before its paths, or `/setup` on a coordinator. */
export const base = document.querySelector<HTMLMetaElement>("meta[name=base]")?.content.replace("BASE", "") ?? "";

/** A path of the wizard's, as a browser asks for it. */
export const at = (path: string) => base + path;

/** The address of one of its sockets. */
export const socketAt = (path: string) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${at(path)}`;
