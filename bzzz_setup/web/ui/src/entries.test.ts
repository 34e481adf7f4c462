import { expect, test } from "vitest";
import { read, rowsOf, shown, written } from "./pairs";
import { type Errors, place } from "./places";
import { title } from "./words";

test("rows keep their values while they are renamed, and none is lost to a name that is there already", () => {
  const data = { coding: "a", review: "b" };
  const rows = rowsOf([], data);
  expect(rows.map((row) => row.name)).toEqual(["coding", "review"]);
  expect(rowsOf(rows, data)).toEqual(rows);
  const renamed = rows.map((row) => (row.name === "coding" ? { ...row, name: "code" } : row));
  expect(written(renamed, data, rows)).toEqual({ code: "a", review: "b" });
  expect(rowsOf(renamed, { code: "a", review: "b" }).map((row) => row.id)).toEqual(rows.map((row) => row.id));
  const twice = rows.map((row) => ({ ...row, name: "coding" }));
  expect(written(twice, data, rows)).toEqual({ coding: "a" });
  expect(written([...rows, { id: 99, name: "" }, { id: 98, name: "later" }], data)).toEqual(data);
  expect(written(rows.slice(1), data, rows)).toEqual({ review: "b" });
});

test("a value of any type is what it looks like", () => {
  for (const [text, value] of [["0.2", 0.2], ["true", true], ["high", "high"], ["", undefined], ['"1"', "1"], ["[1]", [1]]] as const) {
    expect(read(text)).toEqual(value);
    expect(read(shown(value))).toEqual(value);
  }
});

test("a problem is shown at the field that it is about, as far as that can be told", () => {
  const at = (option: string, message: string, value: unknown, held: unknown) => {
    const errors: Errors = {};
    place(errors, { option, message, value, remedy: "Mend it." }, held);
    return errors[option];
  };
  expect(at("models_wanted", "Entry 2: 'x y' is no name.", "x y", [{ name: "a" }, { name: "x y" }])).toEqual({ 1: { name: { __errors: ["'x y' is no name. Mend it."] } } });
  expect(at("models_wanted", "Entry 1: name is missing.", undefined, [{ nodes: ["n1"] }])).toEqual({ 0: { __errors: ["name is missing. Mend it."] } });
  expect(at("gateway_endpoints", "This is no base URL.", "gpu9", [{ name: "a", url: "http://a" }, { name: "b", url: "gpu9" }])).toEqual({ 1: { url: { __errors: ["This is no base URL. Mend it."] } } });
  expect(at("gateway_endpoints", "Wrong.", 1, [{ weight: 1 }, { weight: 1 }])).toEqual({ __errors: ["Wrong. Mend it."] });
  expect(at("cost_users", "anna: day_usd is no amount.", -1, { anna: { day_usd: -1 } })).toEqual({ anna: { day_usd: { __errors: ["day_usd is no amount. Mend it."] } } });
  expect(at("service_port", "Taken.", 80, 80)).toEqual({ __errors: ["Taken. Mend it."] });
  expect(at("alerting_webhook_urls", "'x' is no URL.", "x", ["https://a", "x"])).toEqual({ __errors: ["'x' is no URL. Mend it."] });
  expect(at("network_reserved_ports", "Entry 1: 'x' is no port.", "x", ["x"])).toEqual({ __errors: ["Entry 1: 'x' is no port. Mend it."] });
  expect(at("models_wanted", "Entry 1: n9 is none.", "n9", [{ nodes: ["n1", "n9"] }])).toEqual({ 0: { nodes: { __errors: ["n9 is none. Mend it."] } } });
  expect(at("models_wanted", "Entry 3: gone.", "x", [])).toEqual({ __errors: ["Entry 3: gone. Mend it."] });
});

test("names of options are words, with units and acronyms as people write them", () => {
  expect(title("models", "models_vram_reserve_mib")).toBe("VRAM reserve (MiB)");
  expect(title("detection", "detection_tool_timeout_seconds")).toBe("Tool timeout (seconds)");
  expect(title("auth", "auth_oidc_issuer")).toBe("OIDC issuer");
  expect(title("alerting", "alerting_smtp_server")).toBe("SMTP server");
  expect(title("alerting", "alerting_email_to")).toBe("E-mail to");
  expect(title("", "day_usd")).toBe("Day (USD)");
  expect(title("", "seconds")).toBe("Seconds");
  expect(title("validation", "validation_disk_min_mib_per_second")).toBe("Disk min (MiB/s)");
});
