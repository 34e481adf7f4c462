import { Accordion, AccordionDetails, AccordionSummary, Box, Button, FormHelperText, Stack, TextField, Typography } from "@mui/material";
import { type ArrayFieldItemTemplateProps, type ArrayFieldTemplateProps, type DescriptionFieldProps, descriptionId, type FieldErrorProps, type FieldProps, type ObjectFieldTemplateProps, titleId, toFieldPathId, type RJSFSchema } from "@rjsf/utils";
import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { read, type Row, rowsOf, shown, written } from "./pairs";
import { t } from "./texts";

/** How lists of entries and what has names look in a form: each entry in a frame of its own, rare fields folded. */

type Values = Record<string, unknown>;
/** Of an entry's fields, as many are open as of a role's. */
const OPEN = 4;
const ROOM = "repeat(auto-fill, minmax(min(100%, 280px), 1fr))";

/** A description: what is in back quotes is code. */
export function Told({ text }: { text: string }) {
  return (
    <>
      {text.split("`").map((part, place) => (place % 2 ? <code key={place}>{part}</code> : part))}
    </>
  );
}

export function Folded({ count, children }: { count: number; children: ReactNode }) {
  return (
    <Accordion disableGutters variant="elevation" elevation={0} slotProps={{ transition: { unmountOnExit: true }, region: { role: "presentation" } }} sx={{ mt: 1, bgcolor: "transparent", backgroundImage: "none", "&::before": { display: "none" } }}>
      <AccordionSummary expandIcon={<span aria-hidden>▾</span>} sx={{ px: 0, minHeight: 32, color: "text.secondary", flexDirection: "row-reverse", gap: 1, "& .MuiAccordionSummary-content": { my: 0.5 } }}>
        {t.advanced(count)}
      </AccordionSummary>
      <AccordionDetails sx={{ px: 0, pb: 0 }}>{children}</AccordionDetails>
    </Accordion>
  );
}

export function Description({ description, id }: Pick<DescriptionFieldProps<Values>, "description" | "id">) {
  return (
    <Typography id={id} variant="caption" color="textSecondary" component="div">
      {typeof description === "string" ? <Told text={description} /> : description}
    </Typography>
  );
}

function Errors({ errors = [], fieldPathId }: FieldErrorProps<Values>) {
  if (!errors.length) return null;
  return (
    <Box id={`${fieldPathId.$id}__error`}>
      {errors.map((error, place) => (
        <FormHelperText key={place} error>
          {error}
        </FormHelperText>
      ))}
    </Box>
  );
}

/** Where a group of fields begins. */
function Head({ id, title, children }: { id: string; title: string; children?: ReactNode }) {
  return (
    <Stack direction="row" sx={{ alignItems: "center", gap: 0.5, minHeight: 32 }}>
      <Typography id={id} component="div" sx={{ fontWeight: 600, flexGrow: 1, minWidth: 0, overflowWrap: "anywhere" }}>
        {title}
      </Typography>
      {children}
    </Stack>
  );
}

const wide = (schema: RJSFSchema | undefined) => schema?.type === "object" || (schema?.type === "array" && (schema.items as RJSFSchema | undefined)?.type === "object");

/** Fields beside each other as there is room; those of an entry or a group with its name above. */
function Group({ title, description, properties, schema, formData, fieldPathId }: ObjectFieldTemplateProps<Values>) {
  const level = fieldPathId.path.length;
  const place = fieldPathId.path[level - 1];
  const entry = typeof place === "number";
  const named = schema.properties as Record<string, RJSFSchema>;
  const required = schema.required ?? [];
  // What was folded when it came stays so: a field must not jump away while somebody types in it.
  const [first] = useState(() => new Set(properties.filter(({ name }, order) => !level || order < OPEN || required.includes(name) || formData?.[name] !== undefined).map(({ name }) => name)));
  const grid = (all: typeof properties) => (
    <Box sx={{ display: "grid", gridTemplateColumns: ROOM, columnGap: 2, rowGap: 2.25, mt: 1.25, alignItems: "start" }}>
      {all.map((one) => (
        <Box key={one.name} sx={wide(named[one.name]) ? { gridColumn: "1 / -1" } : {}}>
          {one.content}
        </Box>
      ))}
    </Box>
  );
  const rest = properties.filter(({ name }) => !first.has(name));
  return (
    <Box role={level ? "group" : undefined} aria-labelledby={level && !entry ? titleId(fieldPathId) : undefined} sx={level && !entry ? { border: 1, borderColor: "divider", borderRadius: 1, p: 1.5 } : {}}>
      {level > 0 && !entry && title && <Head id={titleId(fieldPathId)} title={title} />}
      {description && !entry && <Description id={descriptionId(fieldPathId)} description={description} />}
      {grid(properties.filter(({ name }) => first.has(name)))}
      {rest.length > 0 && <Folded count={rest.length}>{grid(rest)}</Folded>}
    </Box>
  );
}

/** A list of entries. */
function List({ title, schema, items, canAdd, onAddClick, disabled, readonly, fieldPathId }: ArrayFieldTemplateProps<Values>) {
  const id = titleId(fieldPathId);
  const box = useRef<HTMLDivElement>(null);
  const added = useRef(false);
  useEffect(() => {
    if (added.current) box.current?.querySelector<HTMLElement>(":scope > [data-entry]:last-of-type :is(input, textarea)")?.focus();
    added.current = false;
  }, [items.length]);
  return (
    <Box ref={box} role="group" aria-labelledby={id} sx={{ border: 1, borderColor: "divider", borderRadius: 1, p: 1.5 }}>
      <Head id={id} title={title} />
      {schema.description && <Description id={descriptionId(fieldPathId)} description={schema.description} />}
      {items}
      {canAdd && (
        // Where a message names the option, this is what it leads to.
        <Button id={fieldPathId.$id} aria-label={t.addTo(title)} variant="outlined" sx={{ mt: 1 }} disabled={!!(disabled || readonly)} onClick={() => {
          added.current = true;
          onAddClick();
        }}>
          {t.add}
        </Button>
      )}
    </Box>
  );
}

function Entry({ children, buttonsProps, index, disabled, readonly }: ArrayFieldItemTemplateProps<Values>) {
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const off = !!(disabled || readonly);
  const number = t.entry(index + 1);
  return (
    <Box role="group" aria-labelledby={id} ref={box} data-entry sx={{ borderTop: 1, borderColor: "divider", mt: 1.5, pt: 0.5 }}>
      <Head id={id} title={number}>
        {buttonsProps.hasMoveUp && (
          <Button aria-label={`${t.up}: ${number}`} disabled={off} onClick={buttonsProps.onMoveUpItem}>
            {t.up}
          </Button>
        )}
        {buttonsProps.hasMoveDown && (
          <Button aria-label={`${t.down}: ${number}`} disabled={off} onClick={buttonsProps.onMoveDownItem}>
            {t.down}
          </Button>
        )}
        <Button color="error" aria-label={`${t.removeIt}: ${number}`} disabled={off} onClick={() => {
            // The focus stays where the entry was.
            box.current?.parentElement?.querySelector<HTMLElement>(":scope > button")?.focus();
            buttonsProps.onRemoveItem();
          }}>
          {t.removeIt}
        </Button>
      </Head>
      {children}
    </Box>
  );
}

export const templates = {
  DescriptionFieldTemplate: Description,
  FieldErrorTemplate: Errors,
  ObjectFieldTemplate: Group,
  ArrayFieldTemplate: List,
  ArrayFieldItemTemplate: Entry,
};

/** Values by names that somebody chooses: a row each. */
export function Pairs({ schema, uiSchema, formData, errorSchema, fieldPathId, onChange, onBlur, onFocus, disabled, readonly, registry }: FieldProps<Values>) {
  const SchemaField = registry.fields.SchemaField!;
  const each = (schema.additionalProperties ?? {}) as RJSFSchema;
  const head = (schema.propertyNames as RJSFSchema | undefined)?.title ?? t.name;
  const data = (formData ?? {}) as Values;
  const [rows, setRows] = useState<Row[]>([]);
  // Names that have come from elsewhere get rows, too.
  const all = rowsOf(rows, data);
  if (all.length > rows.length) setRows(all);
  const id = titleId(fieldPathId);
  const off = !!(disabled || readonly);
  const added = useRef<number>(undefined);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (added.current !== undefined) box.current?.querySelector<HTMLInputElement>(`[data-row="${added.current}"] input`)?.focus();
    added.current = undefined;
  });
  const keep = (changed: Row[]) => {
    setRows(changed);
    const now = written(changed, data, all);
    if (JSON.stringify(now) !== JSON.stringify(written(all, data))) onChange(now, fieldPathId.path);
  };
  return (
    <Box ref={box} role="group" aria-labelledby={id} sx={{ border: 1, borderColor: "divider", borderRadius: 1, p: 1.5 }}>
      <Head id={id} title={schema.title ?? ""} />
      {schema.description && <Description id={descriptionId(fieldPathId)} description={schema.description} />}
      {all.map((row) => {
        const path = toFieldPathId(row.name || `${row.id}`, registry.globalFormOptions, fieldPathId);
        const twice = all.some((other) => other.id !== row.id && other.name === row.name && row.name !== "");
        return (
          <Box key={row.id} data-row={row.id} sx={{ display: "grid", gridTemplateColumns: { xs: "1fr", sm: wide(each) ? "1fr auto" : "minmax(120px, 1fr) 2fr auto" }, gap: 1, mt: 1.5, alignItems: "start" }}>
            <Name row={row} label={head} off={off} twice={twice} fresh={data[row.name] === undefined} onName={(name) => keep(all.map((one) => (one.id === row.id ? { ...one, name } : one)))} />
            <Box sx={wide(each) ? { gridColumn: "1 / -1", gridRow: { sm: 2 } } : {}}>
              {each.type ? (
                <SchemaField
                  name={row.name}
                  schema={each}
                  uiSchema={(uiSchema?.additionalProperties as never) ?? {}}
                  formData={data[row.name] as never}
                  errorSchema={(errorSchema as Record<string, never> | undefined)?.[row.name]}
                  fieldPathId={path}
                  onChange={onChange as never}
                  onBlur={onBlur}
                  onFocus={onFocus}
                  disabled={off || !row.name || twice}
                  registry={registry}
                />
              ) : (
                <Anything label={each.title ?? ""} value={data[row.name]} off={off || !row.name || twice} onValue={(value) => onChange(value as never, path.path)} />
              )}
            </Box>
            <Button color="error" aria-label={`${t.removeIt}: ${row.name}`} disabled={off} onClick={() => {
              box.current?.querySelector<HTMLElement>(":scope > button")?.focus();
              keep(all.filter((one) => one.id !== row.id));
            }}>
              {t.removeIt}
            </Button>
          </Box>
        );
      })}
      <Button
        id={fieldPathId.$id}
        aria-label={t.addTo(schema.title ?? "")}
        variant="outlined"
        sx={{ mt: 1 }}
        disabled={off}
        onClick={() => {
          const next = rowsOf([...all, { id: 0, name: "" }], data);
          added.current = next[next.length - 1]!.id;
          setRows(next);
        }}
      >
        {t.add}
      </Button>
    </Box>
  );
}

function Name({ row, label, off, twice, fresh, onName }: { row: Row; label: string; off: boolean; twice: boolean; fresh: boolean; onName: (name: string) => void }) {
  const [typed, setTyped] = useState(row.name);
  useEffect(() => setTyped(row.name), [row.name]);
  const call = (name: string) => name.trim() !== row.name && onName(name.trim());
  return (
    <TextField
      fullWidth
      label={label}
      value={typed}
      disabled={off}
      error={twice}
      helperText={twice ? t.twice : undefined}
      onChange={(event) => {
        setTyped(event.target.value);
        // What has a value keeps its name until the new one is whole: it could be another's on the way.
        if (fresh) call(event.target.value);
      }}
      onBlur={() => call(typed)}
      onKeyDown={(event) => event.key === "Enter" && call(typed)}
      slotProps={{ inputLabel: { shrink: true } }}
    />
  );
}

/** A value of whatever type: a number and yes or no are such, all else is text. */
function Anything({ label, value, off, onValue }: { label: string; value: unknown; off: boolean; onValue: (value: unknown) => void }) {
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <TextField
      fullWidth
      label={label}
      value={typed ?? shown(value)}
      disabled={off}
      onChange={(event) => {
        setTyped(event.target.value);
        onValue(read(event.target.value));
      }}
      onBlur={() => setTyped(null)}
      slotProps={{ inputLabel: { shrink: true } }}
    />
  );
}
