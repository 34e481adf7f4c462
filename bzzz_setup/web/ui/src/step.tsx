import {
  Accordion,
  AccordionDetails,
  AccordionSummary,
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
import { useMutation } from "@tanstack/react-query";
import type { DescriptionFieldProps, ErrorSchema, FieldProps, RJSFSchema, UiSchema, WidgetProps } from "@rjsf/utils";
import { Fragment, lazy, type ReactNode, startTransition, Suspense, useEffect, useMemo, useRef, useState } from "react";
import { api, type Draft, type OptionSchema, type Problem, type Role } from "./api";
import { go, useChange, useDraft, useSchema, useWanted } from "./hooks";
import { Begin } from "./begin";
import { Machines } from "./machines";
import { t } from "./texts";
import unjudged from "./unjudged";
import { title } from "./words";
import { Wrong } from "./wrong";

type Values = Record<string, unknown>;

const Pictures = lazy(() => import("./pictures"));
const InterfaceChoice = lazy(() => import("./pictures").then((found) => ({ default: found.InterfaceChoice })));
/** Roles of which there is something to look at. */
const DRAWN = ["network", "service", "resources"];
/** Options whose values have been seen on the machines. */
const CHOSEN: Record<string, (props: WidgetProps) => ReactNode> = {
  network_interface: (props) => (
    <Suspense>
      <InterfaceChoice {...props} />
    </Suspense>
  ),
};

const Form = generateForm<Values>();
const templates = { DescriptionFieldTemplate: ({ description, id }: DescriptionFieldProps<Values>) => (
  <Typography id={id} variant="caption" color="textSecondary" component="div">
    {typeof description === "string" ? <Told text={description} /> : description}
  </Typography>
) };

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
      helperText={<Told text={[schema.description, ...(rawErrors ?? [])].join(" ")} />}
      slotProps={{ htmlInput: { "aria-describedby": `${fieldPathId.$id}__help` }, formHelperText: { id: `${fieldPathId.$id}__help` }, inputLabel: { shrink: true } }}
    />
  );
}

/** One of a few, or what holds where none is chosen. */
function Choice({ id, schema, options, value, placeholder, label, disabled, readonly, rawErrors, onChange }: WidgetProps) {
  const yesNo = schema.type === "boolean";
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
      slotProps={{ select: { displayEmpty: true }, inputLabel: { shrink: true, htmlFor: id }, htmlInput: { "aria-describedby": `${id}__help` } }}
    >
      <MenuItem value="">{t.byDefault(placeholder ?? "")}</MenuItem>
      {offered.map((one) => (
        <MenuItem key={one} value={one}>
          {one}
        </MenuItem>
      ))}
    </TextField>
  );
}

/** A description: what is in back quotes is code. */
export function Told({ text }: { text: string }) {
  return (
    <>
      {text.split("`").map((part, place) => (place % 2 ? <code key={place}>{part}</code> : part))}
    </>
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
  const changing = useChange();
  const checking = useMutation({ mutationFn: async () => api.check() });
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
      {changing.conflict !== null && <Alert severity="warning">{t.conflict(changing.conflict)}</Alert>}
      {changing.error && changing.conflict === null && <Alert severity="error">{changing.error.message}</Alert>}
      <Box aria-live="polite">
        {problems.map((problem) => (
          <Alert key={`${problem.option} ${problem.node ?? ""} ${problem.message}`} severity={problem.severity ?? "error"} sx={{ mb: 1 }}>
            <strong>{problem.option}</strong>
            {problem.node && ` (${problem.node})`}: {problem.message} {problem.remedy}
          </Alert>
        ))}
      </Box>
      {number === 1 && Object.keys(draft.data.nodes).length > 0 && <Machines draft={draft.data} />}
      {number === 1 && <Begin first={!Object.keys(draft.data.nodes).length} />}
      {Object.keys(draft.data.nodes).length > 1 && step.roles.length > 0 && (
        <TextField select label={t.forWhom} value={node} onChange={(event) => setNode(event.target.value)} sx={{ maxWidth: 360 }} helperText={node && t.overridden} slotProps={{ select: { displayEmpty: true }, inputLabel: { shrink: true } }}>
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
          <RoleCard key={`${node} ${wanted in role.schema.properties ? wanted : ""}`} role={role} draft={draft.data} node={node} wanted={wanted} onChange={changing.change} />
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
        {checking.data?.problems.map((problem) => (
          <Alert key={`${problem.option} ${problem.node ?? ""} ${problem.message}`} severity={problem.severity ?? "error"} sx={{ mb: 1 }}>
            <strong>{problem.option}</strong>
            {problem.node && ` (${problem.node})`}: {problem.message} {problem.remedy}
          </Alert>
        ))}
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
  onChange: (changes: Record<string, unknown>) => void;
}

/** Tries whom the declaration names, before anything is applied. */
function Tests({ tests }: { tests: string[] }) {
  const trying = useMutation({ mutationFn: (what: string) => api.test(what) });
  return (
    <Box sx={{ mt: 2 }} aria-live="polite">
      <Stack direction="row" spacing={1}>
        {tests.map((what) => (
          <Button key={what} variant="outlined" loading={trying.isPending && trying.variables === what} onClick={() => trying.mutate(what)}>
            {t.tests[what] ?? what}
          </Button>
        ))}
      </Stack>
      {trying.data && (
        <Alert severity="success" sx={{ mt: 1 }}>
          {trying.data.told}
        </Alert>
      )}
      <Wrong error={trying.error} />
    </Box>
  );
}

function RoleCard({ role, draft, node, wanted, onChange }: RoleProps & { wanted: string }) {
  const properties = Object.entries(role.schema.properties);
  const own = (node ? draft.nodes[node]?.options : draft.options) ?? {};
  const about = draft.problems.filter((problem) => problem.option in role.schema.properties);
  const open = new Set([...role.essential, ...Object.keys(own), ...about.map((problem) => problem.option), wanted]);
  const plain = properties.filter(([, option]) => !option.writeOnly);
  const secret = node ? [] : properties.filter(([, option]) => option.writeOnly);
  const first = plain.filter(([name]) => open.has(name)).map(([name]) => name);
  const rest = plain.filter(([name]) => !open.has(name)).map(([name]) => name);
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
        <Options role={role} names={shown.first} own={own} draft={draft} node={node} problems={about} onChange={onChange} />
        {secret.map(([name, option]) => (
          <Secret key={name} label={title(role.name, name)} name={name} option={option} isSet={!!draft.secrets[name]} elsewhere={draft.elsewhere[name] ?? []} onChange={onChange} />
        ))}
        {role.tests.length > 0 && !node && <Tests tests={role.tests} />}
        {shown.rest.length > 0 && (
          <Accordion disableGutters elevation={0} slotProps={{ transition: { unmountOnExit: true } }} sx={{ mt: 1, "&::before": { display: "none" } }}>
            <AccordionSummary expandIcon={<span aria-hidden>▾</span>} sx={{ px: 0 }}>
              {t.advanced(shown.rest.length)}
            </AccordionSummary>
            <AccordionDetails sx={{ px: 0 }}>
              <Options role={role} names={shown.rest} own={own} draft={draft} node={node} problems={about} onChange={onChange} />
            </AccordionDetails>
          </Accordion>
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

function Options({ role, names, own, draft, node, problems, onChange }: OptionsProps) {
  const schema = useMemo(() => {
    const chosen = names.map((name) => [name, forForm(role.name, role.schema.properties[name]!, name, draft.elsewhere[name])] as const);
    return { type: "object", properties: Object.fromEntries(chosen) } as RJSFSchema;
  }, [role, names, draft.elsewhere]);
  const ui = useMemo(() => {
    const found: UiSchema<Values> = { "ui:submitButtonOptions": { norender: true }, "ui:label": false };
    for (const name of names) {
      const option = role.schema.properties[name]!;
      found[name] = {
        "ui:placeholder": otherwise(option, draft, node, name),
        ...(CHOSEN[name] ? { "ui:widget": CHOSEN[name], "ui:options": { node } } : {}),
        ...(option.enum || option.type === "boolean" ? { "ui:widget": Choice } : {}),
        ...(option.type === "array" && option.items?.type !== "object" ? { "ui:field": Lines } : {}),
        ...(draft.templates.includes(node ? `nodes/${node}/${name}` : `options/${name}`) ? { "ui:readonly": true, "ui:help": t.template } : {}),
      };
    }
    return found;
  }, [role, names, draft, node]);
  const extra = useMemo(() => {
    const found: Record<string, { __errors: string[] }> = {};
    for (const problem of problems) {
      if (problem.severity !== "warning" && names.includes(problem.option)) {
        (found[problem.option] ??= { __errors: [] }).__errors.push(`${problem.message} ${problem.remedy}`);
      }
    }
    return found as ErrorSchema<Values>;
  }, [problems, names]);
  // What is being typed stands, until the server has it.
  const [typed, setTyped] = useState<Values>({});
  const latest = useRef(typed);
  latest.current = typed;
  useEffect(() => setTyped({}), [draft.revision]);
  const data = useMemo(() => Object.fromEntries(names.map((name) => [name, name in typed ? typed[name] : own[name]])), [names, own, typed]);
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
        const changes: Record<string, unknown> = {};
        for (const name of names) {
          const value = formData?.[name];
          if (JSON.stringify(value) !== JSON.stringify(data[name])) changes[name] = value;
        }
        if (!Object.keys(changes).length) return;
        setTyped({ ...latest.current, ...changes });
        const prefix = node ? `nodes/${node}/` : "options/";
        onChange(Object.fromEntries(Object.entries(changes).map(([name, value]) => [prefix + name, value === "" ? null : (value ?? null)])));
      }}
    />
  );
}

function inWords(value: unknown): string {
  if (typeof value === "boolean") return value ? t.yes : t.no;
  if (value === undefined || value === null || (Array.isArray(value) && !value.length)) return "";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

/** What holds where nothing is set: what all machines have, what was detected, or else the default. */
function otherwise(option: OptionSchema, draft: Draft, node: string, name: string): string {
  if (node && draft.options[name] !== undefined) return inWords(draft.options[name]);
  const found = draft.detected[name];
  if (found) return node ? inWords(found[node]) : [...new Set(Object.values(found).map(inWords))].join(" / ");
  return inWords(option.default);
}

/** An option as a form shows it; the default is not filled in, so that only what somebody has decided is kept. */
function forForm(role: string, option: OptionSchema, name: string, elsewhere: Draft["elsewhere"][string] = []): RJSFSchema {
  const { default: _default, ...rest } = option;
  const others = elsewhere.map(({ file, value }) => t.elsewhere(file, inWords(value)));
  return { ...rest, title: title(role, name), description: [option.description, `\`${name}\``, ...others].join(" ") } as RJSFSchema;
}

function Secret({ name, label, option, isSet, elsewhere, onChange }: { name: string; label: string; option: OptionSchema; isSet: boolean; elsewhere: Draft["elsewhere"][string]; onChange: (changes: Record<string, unknown>) => void }) {
  const [typed, setTyped] = useState("");
  const send = () => {
    if (typed) onChange({ [`secrets/${name}`]: typed });
    setTyped("");
  };
  return (
    <TextField
      id={`root_${name}`}
      fullWidth
      type="password"
      label={label}
      placeholder={isSet ? t.secretSet : t.secretUnset}
      slotProps={{ inputLabel: { shrink: true } }}
      value={typed}
      autoComplete="off"
      onChange={(event) => setTyped(event.target.value)}
      onBlur={send}
      helperText={<Told text={[option.description, `\`${name}\``, ...elsewhere.map(({ file }) => t.elsewhere(file, ""))].join(" ")} />}
      sx={{ mt: 2 }}
    />
  );
}
