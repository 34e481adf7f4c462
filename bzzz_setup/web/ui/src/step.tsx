import {
  Alert,
  Box,
  Button,
  Card,
  CardContent,
  MenuItem,
  Stack,
  TextField,
  Typography,
} from "@mui/material";
import { generateForm } from "@rjsf/mui";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { ariaDescribedByIds, descriptionId, type ErrorSchema, type FieldProps, type RJSFSchema, type UiSchema, type WidgetProps } from "@rjsf/utils";
import { Fragment, lazy, type ReactNode, startTransition, Suspense, useEffect, useMemo, useRef, useState } from "react";
import { api, type Draft, type OptionSchema, type Problem, Refused, type Role } from "./api";
import { go, useDraft, useOutbox, useRuns, useSchema, useUnsentAt, useWanted } from "./hooks";
import { Begin } from "./begin";
import { Description, Folded, Pairs, templates, Told } from "./entries";
import { Machines } from "./machines";
import { type Errors, place } from "./places";
import { CONNECTIONS, isOfConnections, useStart } from "./start";
import { t } from "./texts";
import unjudged from "./unjudged";
import { title, when } from "./words";
import { Problems, Wrong } from "./wrong";

type Values = Record<string, unknown>;

const Pictures = lazy(() => import("./pictures"));
const Fit = lazy(() => import("./placement"));
const InterfaceChoice = lazy(() => import("./pictures").then((found) => ({ default: found.InterfaceChoice })));
/** Roles of which there is something to look at. */
const DRAWN = ["network", "service", "resources"];
/** Options whose lines are in a file that people have. */
const IN_FILES = ["ssh_public_keys"];
const MOST_BYTES = 100_000;
/** What lines of such a file begin with; options of a key may come before its kind. */
const PUBLIC = /(^|\s)(ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)[\w@.-]+ AAAA/;
/** Options whose values have been seen on the machines. */
const CHOSEN: Record<string, (props: WidgetProps) => ReactNode> = {
  network_interface: (props) => (
    <Suspense>
      <InterfaceChoice {...props} />
    </Suspense>
  ),
};

const Form = generateForm<Values>();
/** A list of words, one a line. */
function Lines({ schema, uiSchema, formData, onChange, fieldPathId, disabled, readonly, rawErrors }: FieldProps) {
  const [text, setText] = useState<string | null>(null);
  const shown = text ?? (Array.isArray(formData) ? formData.join("\n") : "");
  const numbers = (schema.items as { type?: string } | undefined)?.type === "integer";
  const read = (typed: string) => {
    const words = typed.split("\n").map((word) => word.trim()).filter(Boolean);
    return words.length ? words.map((word) => (numbers && /^\d+$/.test(word) ? Number(word) : word)) : undefined;
  };
  return (
    <>
      <TextField
        id={fieldPathId.$id}
        label={schema.title}
        placeholder={uiSchema?.["ui:placeholder"]}
        multiline
        fullWidth
        minRows={1}
        value={shown}
        disabled={disabled || readonly}
        error={!!rawErrors?.length}
        onChange={(event) => {
          setText(event.target.value);
          onChange(read(event.target.value), fieldPathId.path);
        }}
        onBlur={() => setText(null)}
        slotProps={{ htmlInput: { "aria-describedby": ariaDescribedByIds(fieldPathId.$id) }, inputLabel: { shrink: true } }}
      />
      {uiSchema?.["ui:options"]?.fromFile === true && (
        <FromFile
          disabled={!!(disabled || readonly)}
          has={(text) => onChange([...new Set([...(Array.isArray(formData) ? formData : []), ...(read(text) ?? [])])], fieldPathId.path)}
        />
      )}
      <Description id={descriptionId(fieldPathId)} description={schema.description ?? ""} />
    </>
  );
}

/** Lines of a file on the computer of whoever looks. A private key chosen by mistake does not leave that. */
function FromFile({ disabled, has }: { disabled: boolean; has: (text: string) => void }) {
  const [refused, setRefused] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const chosen = async (file: File | undefined) => {
    if (!file) return;
    const text = file.size > MOST_BYTES ? "" : await file.text();
    const lines = text.split("\n").filter((line) => line.trim() && !line.startsWith("#"));
    const wrong = file.size > MOST_BYTES ? t.tooLarge(file.name) : !lines.length || lines.some((line) => !PUBLIC.test(line)) ? t.noKeys(file.name) : null;
    setRefused(wrong);
    if (!wrong) has(lines.join("\n"));
  };
  return (
    <Box>
      <Button size="small" disabled={disabled} onClick={() => input.current?.click()}>
        {t.fromFile}
      </Button>
      <input
        ref={input}
        type="file"
        hidden
        aria-label={t.fromFile}
        onChange={({ target }) => {
          void chosen(target.files?.[0]);
          target.value = "";
        }}
      />
      {refused && <Alert severity="error">{refused}</Alert>}
    </Box>
  );
}

/** One of a few, or what holds where none is chosen. */
function Choice({ id, schema, options, value, label, disabled, readonly, rawErrors, onChange }: WidgetProps) {
  const yesNo = schema.type === "boolean";
  const otherwise = String(options.otherwise ?? "");
  const offered = yesNo ? [t.yes, t.no] : (options.enumOptions ?? []).map((one) => String(one.value));
  const shown = value === undefined || value === null ? "" : yesNo ? (value ? t.yes : t.no) : String(value);
  return (
    <TextField
      select
      fullWidth
      id={id}
      label={label}
      value={shown}
      disabled={disabled || readonly}
      error={!!rawErrors?.length}
      onChange={({ target }) => onChange(target.value === "" ? undefined : yesNo ? target.value === t.yes : target.value)}
      slotProps={{ select: { displayEmpty: true }, inputLabel: { shrink: true, htmlFor: id }, htmlInput: { "aria-describedby": ariaDescribedByIds(id) } }}
    >
      <MenuItem value="">{otherwise}</MenuItem>
      {offered.map((one) => (
        <MenuItem key={one} value={one}>
          {one}
        </MenuItem>
      ))}
    </TextField>
  );
}

/** How many of so many are drawn: one more at a time, so that the page answers meanwhile; at once those that somebody waits for. */
function useOneByOne(all: number, atOnce: number): number {
  const [drawn, setDrawn] = useState(1);
  const shown = Math.min(all, Math.max(drawn, atOnce));
  useEffect(() => {
    if (shown < all) startTransition(() => setDrawn(shown + 1));
  }, [shown, all]);
  return shown;
}

export default function StepPage({ number }: { number: number }) {
  const schema = useSchema();
  const draft = useDraft();
  const { flush } = useOutbox();
  // Whoever goes elsewhere finds it judged already.
  useEffect(() => () => void flush(), [flush]);
  const checking = useMutation({
    mutationFn: async () => {
      await flush();
      return api.check();
    },
  });
  const [node, setNode] = useState("");
  const steps = schema.data?.steps;
  const step = steps?.find((one) => one.number === number);
  const wanted = useWanted();
  const there = !!step && !!draft.data;
  const roles = step?.roles ?? [];
  const shown = useOneByOne(there ? roles.length : 0, roles.findIndex((role) => wanted in role.schema.properties) + 1);
  useEffect(() => {
    if (wanted && there) document.getElementById(`root_${wanted}`)?.focus();
  }, [wanted, there]);
  if (!steps || !step || !draft.data) return null;
  const last = number === steps.length;
  const problems = draft.data.problems.filter((problem) => problem.step === number);
  return (
    <Stack spacing={2}>
      <Typography variant="h1">{t.step(number, steps.length, step.title)}</Typography>
      <Box aria-live="polite">
        <Problems problems={problems} />
      </Box>
      {number === 1 && Object.keys(draft.data.nodes).length > 0 && <Machines draft={draft.data} />}
      {number === 1 && <Begin first={!Object.keys(draft.data.nodes).length} />}
      {Object.keys(draft.data.nodes).length > 1 && step.roles.length > 0 && (
        <TextField select label={t.forWhom} value={node} onChange={(event) => setNode(event.target.value)} sx={{ maxWidth: 480 }} helperText={node ? t.overridden : t.forAll} slotProps={{ select: { displayEmpty: true }, inputLabel: { shrink: true } }}>
          <MenuItem value="">{t.allMachines}</MenuItem>
          {Object.keys(draft.data.nodes).map((name) => (
            <MenuItem key={name} value={name}>
              {t.only(name)}
            </MenuItem>
          ))}
        </TextField>
      )}
      {roles.slice(0, shown).map((role) => (
        <Fragment key={role.name}>
          <RoleCard key={`${node} ${wanted in role.schema.properties ? wanted : ""}`} role={role} draft={draft.data} node={node} wanted={wanted} />
          {role.name === "models" && !node && (
            <Suspense>
              <Fit draft={draft.data} flush={flush} />
            </Suspense>
          )}
          {DRAWN.includes(role.name) && (
            <Suspense>
              <Pictures role={role.name} steps={steps} draft={draft.data} />
            </Suspense>
          )}
        </Fragment>
      ))}
      <Box aria-live="polite">
        {checking.data && !checking.data.problems.length && <Alert severity="success">{t.noProblems}</Alert>}
        {checking.error && <Wrong error={checking.error} />}
        {checking.data && <Problems problems={checking.data.problems} />}
      </Box>
      {/* Below all of it, so that nothing moves under somebody's finger. */}
      {shown === roles.length && (
        <Stack direction="row" spacing={1} sx={{ justifyContent: "space-between" }}>
          <Button variant="outlined" disabled={number === 1} onClick={() => go(`/step/${number - 1}`)}>
            {t.back}
          </Button>
          <Button variant="outlined" loading={checking.isPending} disabled={!Object.keys(draft.data.nodes).length} onClick={() => checking.mutate()}>
            {t.check}
          </Button>
          <Button variant="contained" onClick={() => go(last ? "/review" : `/step/${number + 1}`)}>
            {last ? t.review : t.next}
          </Button>
        </Stack>
      )}
    </Stack>
  );
}

interface RoleProps {
  role: Role;
  draft: Draft;
  node: string;
}

/** The machines try each other before anything is applied. */
function Connections() {
  const trying = useStart("plan");
  const last = useRuns().data?.runs.find((run) => isOfConnections(run.command, run.only));
  return (
    <Stack spacing={1} sx={{ my: 1.500, alignItems: "flex-start" }}>
      <Button variant="outlined" loading={trying.isPending} onClick={() => trying.mutate([CONNECTIONS])}>
        {t.tryConnections}
      </Button>
      <Typography color="textSecondary">{t.connectionsNote}</Typography>
      {last && (
        <Button size="small" onClick={() => go(`/run/${last.run}`)}>
          {t.triedLast(when(last.started), last.exit_code === 0 ? t.fine : (t.outcomes[last.outcome] ?? last.outcome))}
        </Button>
      )}
      <Wrong error={trying.error} />
    </Stack>
  );
}

/** Tries whom the declaration names, before anything is applied. */
function Tests({ tests, revision }: { tests: string[]; revision: number }) {
  const { flush } = useOutbox();
  const queries = useQueryClient();
  // An answer is about what was declared when it was asked for.
  const of = useRef<number>(undefined);
  const trying = useMutation({
    mutationFn: async (what: string) => {
      await flush();
      of.current = queries.getQueryData<Draft>(["draft"])?.revision;
      return api.test(what);
    },
  });
  const current = of.current === revision;
  return (
    <Box sx={{ mt: 2 }} aria-live="polite">
      <Stack direction="row" sx={{ gap: 1, flexWrap: "wrap", alignItems: "center" }}>
        {tests.map((what) => (
          <Button
            key={what}
            variant="outlined"
            loading={trying.isPending && trying.variables === what}
            onClick={() => trying.mutate(what)}
          >
            {t.tests[what] ?? what}
          </Button>
        ))}
        {trying.isPending && <Typography color="textSecondary">{t.trying}</Typography>}
      </Stack>
      {current && trying.data && (
        <Alert severity="success" sx={{ mt: 1 }}>
          {trying.data.told}
        </Alert>
      )}
      {current && <Wrong error={trying.error} />}
    </Box>
  );
}

function RoleCard({ role, draft, node, wanted }: RoleProps & { wanted: string }) {
  const properties = Object.entries(role.schema.properties);
  const own = (node ? draft.nodes[node]?.options : draft.options) ?? {};
  const about = draft.problems.filter((problem) => problem.option in role.schema.properties);
  const open = new Set([...role.essential, ...Object.keys(own), ...about.map((problem) => problem.option), wanted]);
  // A secret is all machines'.
  const names = properties.filter(([, option]) => !node || !option.writeOnly).map(([name]) => name);
  const first = names.filter((name) => open.has(name) || draft.secrets[name]);
  const rest = names.filter((name) => !first.includes(name));
  // What was folded when the page came stays so: a field must not jump away while somebody types in it.
  const [shown] = useState({ first, rest });
  return (
    <Card variant="outlined" component="section" aria-labelledby={`role-${role.name}`}>
      <CardContent>
        <Typography variant="h2" id={`role-${role.name}`}>
          {role.title}
        </Typography>
        <Typography color="textSecondary" sx={{ mb: 1 }}>
          <Told text={role.description} />
        </Typography>
        <Options role={role} names={shown.first} own={own} draft={draft} node={node} problems={about} />
        {role.name === "network" && !node && <Connections />}
        {role.tests.length > 0 && !node && <Tests tests={role.tests} revision={draft.revision} />}
        {shown.rest.length > 0 && (
          <Folded count={shown.rest.length}>
            <Options role={role} names={shown.rest} own={own} draft={draft} node={node} problems={about} />
          </Folded>
        )}
      </CardContent>
    </Card>
  );
}

interface OptionsProps extends RoleProps {
  names: string[];
  own: Values;
  problems: Problem[];
}

function Options({ role, names, own, draft, node, problems }: OptionsProps) {
  const { change } = useOutbox();
  const prefix = node ? `nodes/${node}/` : "options/";
  const paths = useMemo(() => names.map((name) => (role.schema.properties[name]!.writeOnly ? `secrets/${name}` : prefix + name)), [role, names, prefix]);
  const { values: unsent, conflict, refused } = useUnsentAt(paths);
  const secrets = paths.filter((path) => path.startsWith("secrets/") && path in unsent).join(" ");
  const schema = useMemo(() => {
    const chosen = names.map((name) => [name, forForm(role.name, role.schema.properties[name]!, name, draft.elsewhere[name])] as const);
    return { type: "object", properties: Object.fromEntries(chosen) } as RJSFSchema;
  }, [role, names, draft.elsewhere]);
  const ui = useMemo(() => {
    const found: UiSchema<Values> = { "ui:submitButtonOptions": { norender: true }, "ui:label": false };
    for (const name of names) {
      const option = role.schema.properties[name]!;
      found[name] = {
        ...drawn(option, ...otherwise(option, draft, node, name)),
        ...(IN_FILES.includes(name) ? { "ui:options": { fromFile: true } } : {}),
        ...(CHOSEN[name] ? { "ui:widget": CHOSEN[name], "ui:options": { node } } : {}),
        ...(option.writeOnly ? { "ui:field": Secret, "ui:options": { isSet: secrets.split(" ").includes(`secrets/${name}`) || !!draft.secrets[name], send: (value: string | null) => change({ [`secrets/${name}`]: value }) } } : {}),
        ...(draft.templates.includes(prefix + name) ? { "ui:readonly": true, "ui:help": t.template } : {}),
      };
    }
    return found;
  }, [role, names, draft, node, prefix, change, secrets]);
  const extra = useMemo(() => {
    const found: Errors = {};
    for (const problem of problems) {
      if (problem.severity === "warning" || !names.includes(problem.option)) continue;
      place(found, problem, own[problem.option]);
    }
    // Of a secret nobody can tell later what was wrong with it.
    for (const problem of refused instanceof Refused ? refused.problems : []) {
      if (names.includes(problem.option) && role.schema.properties[problem.option]!.writeOnly) place(found, problem, undefined);
    }
    return found as ErrorSchema<Values>;
  }, [problems, names, own, refused, role]);
  // What is being typed stands, until the server has it.
  const [typed, setTyped] = useState<Values>({});
  const latest = useRef(typed);
  latest.current = typed;
  const going = useRef(unsent);
  going.current = unsent;
  useEffect(() => {
    setTyped((before) => Object.fromEntries(Object.entries(before).filter(([name]) => prefix + name in going.current)));
  }, [draft.revision, prefix, conflict]);
  const data = useMemo(
    () => Object.fromEntries(names.map((name) => [name, name in typed ? typed[name] : prefix + name in unsent ? (unsent[prefix + name] ?? undefined) : own[name]])),
    [names, own, typed, unsent, prefix],
  );
  return (
    <Form
      tagName="div"
      templates={templates}
      schema={schema}
      uiSchema={ui}
      formData={data}
      validator={unjudged}
      extraErrors={extra}
      showErrorList={false}
      noHtml5Validate
      experimental_defaultFormStateBehavior={{ emptyObjectFields: "skipDefaults" }}
      onChange={({ formData }) => {
        const changed = names.filter((name) => JSON.stringify(formData?.[name]) !== JSON.stringify(data[name]));
        if (!changed.length) return;
        setTyped({ ...latest.current, ...Object.fromEntries(changed.map((name) => [name, formData?.[name]])) });
        const told = changed.map((name) => [name, kept(formData?.[name], role.schema.properties[name]!)] as const).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(own[name] ?? null) || prefix + name in unsent);
        if (told.length) change(Object.fromEntries(told.map(([name, value]) => [prefix + name, value])));
      }}
    />
  );
}

const isList = (option: OptionSchema) => option.type === "array" && option.items?.type === "object";
const isEmpty = (value: unknown) => value === undefined || value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);

/** What is kept of a value: nothing where nothing was typed, nor of an entry that is still empty. */
function kept(value: unknown, option: OptionSchema): unknown {
  const found = isList(option) && Array.isArray(value) ? value.filter((entry) => !isEmpty(entry)) : value;
  return isEmpty(found) && isEmpty(option.default) ? null : found === "" ? null : (found ?? null);
}

/** How a field is drawn, what it shows where nothing is typed, and whence that is. */
function drawn(option: OptionSchema, instead: string, whence: Whence = "default"): UiSchema<Values> {
  const told = whence === "default" || !instead ? {} : { "ui:help": t.instead[whence](instead) };
  if (option.enum || option.type === "boolean") return { "ui:widget": Choice, "ui:options": { otherwise: t.whence[whence](instead) } };
  if (option.type === "array" && !isList(option)) return { "ui:field": Lines, "ui:placeholder": instead, ...told };
  const inner = (all: Record<string, OptionSchema> = {}) => Object.fromEntries(Object.entries(all).map(([name, one]) => [name, drawn(one, inWords(one.default))]));
  if (isList(option)) return { items: inner(option.items?.properties) };
  if (option.additionalProperties) return { "ui:field": Pairs, additionalProperties: drawn(option.additionalProperties, "") };
  return option.type === "object" ? inner(option.properties) : { "ui:placeholder": instead, ...told };
}

function inWords(value: unknown): string {
  if (typeof value === "boolean") return value ? t.yes : t.no;
  if (isEmpty(value)) return "";
  return Array.isArray(value) && !value.some((one) => typeof one === "object") ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
}

type Whence = keyof typeof t.whence;

/** What holds where nothing is set: what all machines have, what was detected, or else the default; and which of these. */
function otherwise(option: OptionSchema, draft: Draft, node: string, name: string): [string, Whence] {
  if (node && draft.options[name] !== undefined) return [inWords(draft.options[name]), "all"];
  const found = draft.detected[name];
  if (found) return [node ? inWords(found[node]) : [...new Set(Object.values(found).map(inWords))].join(" / "), "detected"];
  return [inWords(option.default), "default"];
}

/** An option as a form shows it; the default is not filled in, so that only what somebody has decided is kept. */
function forForm(role: string, option: OptionSchema, name: string, elsewhere: Draft["elsewhere"][string] = []): RJSFSchema {
  const others = elsewhere.map(({ file, value }) => t.elsewhere(file, inWords(value)));
  const found = bare(option, title(role, name));
  return { ...found, description: [found.description, t.option(name), ...others].join(" ") } as RJSFSchema;
}

/** Without defaults, and with words for its names, however deep they are. */
function bare(option: OptionSchema, words: string): OptionSchema & { title: string } {
  const { default: _default, properties, items, additionalProperties, ...rest } = option;
  const found: OptionSchema & { title: string } = { ...rest, title: option.title ?? words };
  if (option.type === "array" && !isList(option)) found.description = [option.description, t.onePerLine].filter(Boolean).join(" ");
  if (properties) found.properties = Object.fromEntries(Object.entries(properties).map(([name, one]) => [name, bare(one, title("", name))]));
  if (items) found.items = bare(items, "");
  if (additionalProperties) found.additionalProperties = bare(additionalProperties, "");
  return found;
}

function Secret({ schema, uiSchema, fieldPathId, rawErrors }: FieldProps) {
  const [typed, setTyped] = useState("");
  const { isSet, send } = uiSchema?.["ui:options"] as unknown as { isSet: boolean; send: (value: string | null) => void };
  const leave = () => {
    if (typed) send(typed);
    setTyped("");
  };
  return (
    <>
      <TextField
        id={fieldPathId.$id}
        fullWidth
        type="password"
        label={schema.title}
        placeholder={isSet ? t.secretSet : t.secretUnset}
        value={typed}
        autoComplete="off"
        error={!!rawErrors?.length}
        onChange={(event) => setTyped(event.target.value)}
        onBlur={leave}
        onKeyDown={(event) => event.key === "Enter" && leave()}
        slotProps={{
          htmlInput: { "aria-describedby": ariaDescribedByIds(fieldPathId.$id) },
          inputLabel: { shrink: true },
          input: {
            endAdornment: isSet && !typed && (
              <Button size="small" aria-label={t.takeAway(schema.title ?? "")} onClick={() => send(null)}>
                {t.removeIt}
              </Button>
            ),
          },
        }}
      />
      <Description id={descriptionId(fieldPathId)} description={schema.description ?? ""} />
    </>
  );
}
