import { Alert, Box, Card, CardContent, LinearProgress, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useMemo, useState } from "react";
import { api, Refused, type Spend } from "./api";
import { Field } from "./field";
import { type Column, stacks, totals, usd } from "./spend";
import { t } from "./texts";
import { Wrong } from "./wrong";

/** Without it there is no gateway. */
const SWITCH = "gateway_enabled";

/** What calls have cost: over time, by what people ask for, and against the budgets. */
export default function Cost() {
  const [by, setBy] = useState<Spend["by"]>("model");
  const [days, setDays] = useState(0);
  const since = days ? new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10) : undefined;
  const asked = useQuery({ queryKey: ["cost", by, since], queryFn: () => api.cost(by, since), retry: false, placeholderData: (before) => before });
  const spend = asked.data;
  const without = asked.error instanceof Refused ? asked.error.problems.find((problem) => problem.option === SWITCH) : undefined;
  if (without) {
    return (
      <Stack spacing={2}>
        <Typography variant="h1">{t.cost}</Typography>
        <Alert severity="info">
          {t.noGateway} <Field option={SWITCH} step={4} />.
        </Alert>
      </Stack>
    );
  }
  return (
    <Stack spacing={2}>
      <Stack direction="row" sx={{ gap: 1, alignItems: "center", flexWrap: "wrap" }}>
        <Typography variant="h1" sx={{ flexGrow: 1 }}>
          {t.cost}
        </Typography>
        <TextField select size="small" label={t.range} value={days} onChange={(event) => setDays(Number(event.target.value))} slotProps={{ select: { native: true } }}>
          {Object.entries(t.ranges).map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </TextField>
        <TextField select size="small" label={t.costBy} value={by} onChange={(event) => setBy(event.target.value as Spend["by"])} slotProps={{ select: { native: true } }}>
          {Object.entries(t.dimensions).map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </TextField>
      </Stack>
      {asked.isFetching && (
        <Box role="status">
          <Typography>{t.askingLedger}</Typography>
          <LinearProgress aria-label={t.askingLedger} />
        </Box>
      )}
      {asked.error && <Wrong error={asked.error} />}
      {spend && !asked.error && <Told spend={spend} />}
    </Stack>
  );
}

function Told({ spend }: { spend: Spend }) {
  const cached = spend.caching.tokens_in ? Math.round((100 * spend.caching.tokens_cached) / spend.caching.tokens_in) : 0;
  return (
    <>
      <Box component="dl" sx={{ display: "grid", gridTemplateColumns: "repeat(auto-fit, minmax(180px, 1fr))", gap: 1.500, m: 0 }}>
        <Figure name={t.spent} value={usd(spend.nano)} note={spend.held_nano > 0 ? t.held(usd(spend.held_nano)) : t.calls(spend.calls)} />
        <Figure name={t.month} value={usd(spend.month.spent_nano)} note={t.monthEnd(usd(spend.month.expected_nano))} />
        <Figure name={t.fromCaches} value={`${cached} %`} note={t.ofTokens(spend.caching.tokens_in)} />
      </Box>
      {!spend.rows.length && <Alert severity="info">{t.nothingSpent}</Alert>}
      {spend.rows.length > 0 && <OverTime spend={spend} />}
      {spend.rows.length > 0 && <ByName spend={spend} />}
      {spend.budgets.length > 0 && <Budgets spend={spend} />}
      {spend.recommendations.length + spend.idle.length > 0 && (
        <Part id="cheaper" title={t.cheaper}>
          <Box component="ul" sx={{ m: 0, pl: 2.500 }}>
            {spend.recommendations.map((one) => (
              <li key={`${one.task} ${one.model}`}>{t.wouldCost(one.task, one.model, usd(one.cost_nano), one.other, usd(one.other_nano))}</li>
            ))}
            {spend.idle.map((one) => (
              <li key={one.node}>{t.idle(one.node, one.gpus)}</li>
            ))}
          </Box>
        </Part>
      )}
      <Typography color="textSecondary">{t.ledgerOf(spend.gateway, spend.time_zone)}</Typography>
    </>
  );
}

function Figure({ name, value, note }: { name: string; value: string; note: string }) {
  return (
    <Box sx={{ border: 1, borderColor: "divider", borderRadius: 1, p: 1.500, bgcolor: "background.paper" }}>
      <Typography component="dt" color="textSecondary">
        {name}
      </Typography>
      <Typography component="dd" sx={{ m: 0, fontSize: "1.4rem", fontVariantNumeric: "tabular-nums" }}>
        {value}
      </Typography>
      <Typography component="dd" color="textSecondary" sx={{ m: 0 }}>
        {note}
      </Typography>
    </Box>
  );
}

function Part({ id, title, children }: { id: string; title: string; children: ReactNode }) {
  return (
    <Card variant="outlined" component="section" aria-labelledby={id}>
      <CardContent>
        <Typography variant="h2" id={id} gutterBottom>
          {title}
        </Typography>
        {children}
      </CardContent>
    </Card>
  );
}

// Of the same lightness in pairs, and told apart by who cannot tell red from green.
const COLOURS = ["#3b7dd8", "#e08a1e", "#2a9d8f", "#b1487f", "#8d9440", "#8a8f98"];
const HEIGHT = 160;

function OverTime({ spend }: { spend: Spend }) {
  const { names, columns, most } = useMemo(() => stacks(spend, t.others, t.noName), [spend]);
  const when = (start: string) => (spend.per === "hour" ? start.slice(5, 16).replace("T", " ") : start.slice(0, 10));
  const width = 100 / columns.length;
  return (
    <Part id="over-time" title={spend.per === "hour" ? t.byHour : t.byDay}>
      <Stack direction="row" component="ul" sx={{ gap: 2, flexWrap: "wrap", listStyle: "none", m: 0, mb: 1, p: 0 }}>
        {names.map((name, place) => (
          <Box component="li" key={name} sx={{ display: "flex", alignItems: "center", gap: 0.75 }}>
            <Box component="span" aria-hidden sx={{ width: 12, height: 12, borderRadius: 0.5, bgcolor: COLOURS[place] }} />
            {name}
          </Box>
        ))}
      </Stack>
      <Box role="img" aria-label={t.chart(usd(most))} sx={{ display: "flex", alignItems: "stretch", gap: 1 }}>
        <Stack aria-hidden sx={{ justifyContent: "space-between", textAlign: "right", color: "text.secondary", fontSize: 12, height: HEIGHT }}>
          <span>{usd(most)}</span>
          <span>0</span>
        </Stack>
        <Box component="svg" aria-hidden viewBox={`0 0 100 ${HEIGHT}`} preserveAspectRatio="none" sx={{ width: "100%", height: HEIGHT, borderBottom: 1, borderColor: "divider" }}>
          {columns.map((column, place) => (
            <Pile key={column.start} column={column} left={place * width} width={Math.min(width * 0.8, 12)} most={most} title={when(column.start)} />
          ))}
        </Box>
      </Box>
      <Stack aria-hidden direction="row" sx={{ justifyContent: "space-between", color: "text.secondary", fontSize: 12, pl: 8 }}>
        <span>{when(columns[0]!.start)}</span>
        {columns.length > 1 && <span>{when(columns[columns.length - 1]!.start)}</span>}
      </Stack>
      <Box component="details" sx={{ mt: 1 }}>
        <summary>{t.asTable}</summary>
        <Rows id="over-time" heads={[spend.per === "hour" ? t.hour : t.day, ...names, t.sum]}>
          {columns.map((column) => (
            <TableRow key={column.start}>
              <TableCell component="th" scope="row" sx={{ whiteSpace: "nowrap" }}>
                {when(column.start)}
              </TableCell>
              {column.parts.map((part) => (
                <Amount key={part.name}>{usd(part.nano)}</Amount>
              ))}
              <Amount>{usd(column.nano)}</Amount>
            </TableRow>
          ))}
        </Rows>
      </Box>
    </Part>
  );
}

function Pile({ column, left, width, most, title }: { column: Column; left: number; width: number; most: number; title: string }) {
  let ground = HEIGHT;
  return (
    <g>
      <title>{`${title}: ${usd(column.nano)}`}</title>
      {column.parts.map((part, place) => {
        const height = most ? (part.nano * (HEIGHT - 4)) / most : 0;
        ground -= height;
        return <rect key={part.name} x={left} y={ground} width={width} height={height} fill={COLOURS[place]} />;
      })}
    </g>
  );
}

function ByName({ spend }: { spend: Spend }) {
  const found = useMemo(() => totals(spend, t.noName), [spend]);
  const most = Math.max(1, ...found.map((one) => one.nano));
  return (
    <Part id="by-name" title={t.byWhat(t.dimensions[spend.by])}>
      <Rows id="by-name" heads={[t.dimensions[spend.by], t.spent, t.share, t.callsHead, t.tokens, t.latency]}>
        {found.map((one) => (
          <TableRow key={one.name}>
            <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
              {one.name}
            </TableCell>
            <Amount>{usd(one.nano)}</Amount>
            <TableCell sx={{ width: "35%", minWidth: 100 }}>
              <Bar percent={(100 * one.nano) / most} colour="var(--mui-palette-primary-main)" />
            </TableCell>
            <Amount>{one.calls.toLocaleString()}</Amount>
            <Amount>{one.tokens.toLocaleString()}</Amount>
            <Amount>{(one.latency / 1000).toFixed(2)} s</Amount>
          </TableRow>
        ))}
      </Rows>
    </Part>
  );
}

function Budgets({ spend }: { spend: Spend }) {
  return (
    <Part id="budgets" title={t.budgets}>
      <Rows id="budgets" heads={[t.budgetOf, t.each, t.limit, t.spent, t.share]}>
        {spend.budgets.map((one) => {
          const part = one.limit_nano ? ((one.spent_nano + one.held_nano) * 100) / one.limit_nano : 100;
          const colour = part >= 95 ? "error" : part >= 80 ? "warning" : "success";
          return (
            <TableRow key={`${one.scope} ${one.period}`}>
              <TableCell component="th" scope="row" sx={{ fontWeight: 600 }}>
                {one.scope}
              </TableCell>
              <TableCell>{one.period}</TableCell>
              <Amount>{usd(one.limit_nano)}</Amount>
              <Amount>
                {usd(one.spent_nano + one.held_nano)} ({Math.floor(part)} %)
              </Amount>
              <TableCell sx={{ width: "35%", minWidth: 100 }}>
                <Bar percent={Math.min(100, part)} colour={`var(--mui-palette-${colour}-main)`} />
              </TableCell>
            </TableRow>
          );
        })}
      </Rows>
    </Part>
  );
}

function Bar({ percent, colour }: { percent: number; colour: string }) {
  return (
    <Box component="svg" aria-hidden sx={{ display: "block", width: "100%", height: 10 }}>
      <rect width="100%" height="10" rx="3" fill="var(--mui-palette-divider)" />
      <rect width={`${percent}%`} height="10" rx="3" fill={colour} />
    </Box>
  );
}

const Amount = ({ children }: { children: ReactNode }) => <TableCell sx={{ textAlign: "right", whiteSpace: "nowrap", fontVariantNumeric: "tabular-nums" }}>{children}</TableCell>;

function Rows({ id, heads, children }: { id: string; heads: string[]; children: ReactNode }) {
  return (
    <TableContainer tabIndex={0} role="group" aria-labelledby={id}>
      <Table>
        <TableHead>
          <TableRow>
            {heads.map((head, place) => (
              <TableCell key={`${head} ${place}`}>{head}</TableCell>
            ))}
          </TableRow>
        </TableHead>
        <TableBody>{children}</TableBody>
      </Table>
    </TableContainer>
  );
}
