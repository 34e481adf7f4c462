import { Alert, Button, Card, CardContent, MenuItem, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useState } from "react";
import { api, type Me } from "./api";
import { Password } from "./password";
import { ofField, ofNone } from "./refused";
import { Sure } from "./sure";
import { t } from "./texts";
import { day } from "./words";
import { Wrong } from "./wrong";

const ROLES = ["viewer", "operator", "admin"];

/** Who may use the wizard: an administrator's page; everybody's for the own password. */
export default function People({ me }: { me: Me }) {
  const admin = me.scopes.includes("auth");
  return (
    <Stack spacing={2}>
      <Typography variant="h1">{admin ? t.people : me.name}</Typography>
      {admin && <Users me={me} />}
      {admin && <Tokens />}
      {me.kind === "user" && <OwnPassword />}
    </Stack>
  );
}

function Users({ me }: { me: Me }) {
  const users = useQuery({ queryKey: ["users"], queryFn: api.users });
  const onSuccess = useAgain("users");
  const [name, setName] = useState("");
  const [role, setRole] = useState("operator");
  const [password, setPassword] = useState("");
  const [resetting, setResetting] = useState<string | null>(null);
  const adding = useMutation({
    mutationFn: () => api.addUser(name, role, password),
    onSuccess: () => {
      setName("");
      setPassword("");
      return onSuccess();
    },
  });
  const removing = useMutation({ mutationFn: api.removeUser, onSuccess });
  const changing = useMutation({
    mutationFn: ({ who, change }: { who: string; change: Parameters<typeof api.changeUser>[1] }) => api.changeUser(who, change),
    onSuccess: (_done, { change }) => {
      if (change.password) setResetting(null);
      return onSuccess();
    },
  });
  return (
    <>
      {[users.error, ofNone(adding.error, ["name", "password"]), removing.error, ofNone(changing.error, ["password"])].map((error, place) => (
        <Wrong key={place} error={error} />
      ))}
      <Listed label={t.people} heads={[t.user, t.role, t.since, t.actions]}>
        {users.data?.users.map((user) => (
          <TableRow key={user.name}>
            <TableCell component="th" scope="row">
              {user.name}
            </TableCell>
            <TableCell>
              {user.name === me.name ? user.role : <Choice label={t.roleOf(user.name)} hidden value={user.role} choose={(role) => changing.mutate({ who: user.name, change: { role } })} />}
            </TableCell>
            <TableCell>{day(user.created)}</TableCell>
            <TableCell align="right">
              {user.locked && <Button onClick={() => changing.mutate({ who: user.name, change: { locked: false } })}>{t.unlock(user.name)}</Button>}
              {user.name !== me.name && <Button onClick={() => (changing.reset(), setResetting(user.name))}>{t.resetPassword(user.name)}</Button>}
              {user.name !== me.name && (
                <Sure label={t.remove(user.name)} question={t.removeQuestion(user.name)} then={() => removing.mutate(user.name)} />
              )}
            </TableCell>
          </TableRow>
        ))}
      </Listed>
      {resetting && (
        <Form key={resetting} wanted error={changing.error} title={t.resetPassword(resetting)} button={t.set} pending={changing.isPending} send={([password = ""]) => changing.mutate({ who: resetting, change: { password } })} secrets={[{ label: t.newPassword, option: "password", help: t.passwordRule, fill: "new-password" }]} />
      )}
      <Sheet title={t.addUser} submit={() => adding.mutate()}>
        <Named label={t.user} value={name} change={setName} error={adding.error} />
        <Choice label={t.role} value={role} choose={setRole} />
        <Password label={t.password} value={password} change={setPassword} fill="new-password" help={t.passwordRule} wrong={ofField(adding.error, "password")} />
        <Button type="submit" variant="contained" loading={adding.isPending}>
          {t.addUser}
        </Button>
      </Sheet>
    </>
  );
}

function Tokens() {
  const tokens = useQuery({ queryKey: ["tokens"], queryFn: api.tokens });
  const onSuccess = useAgain("tokens");
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [days, setDays] = useState("90");
  const issuing = useMutation({
    mutationFn: () => api.issueToken(name, role, Number(days)),
    onSuccess: () => {
      setName("");
      return onSuccess();
    },
  });
  const revoking = useMutation({ mutationFn: api.revokeToken, onSuccess });
  return (
    <>
      <Typography variant="h2">{t.issuedTokens}</Typography>
      <Typography color="textSecondary">{t.tokensNote}</Typography>
      {[tokens.error, ofNone(issuing.error, ["name", "days"]), revoking.error].map((error, place) => (
        <Wrong key={place} error={error} />
      ))}
      {tokens.data?.tokens.length === 0 && <Typography>{t.noTokens}</Typography>}
      {!!tokens.data?.tokens.length && (
        <Listed label={t.issuedTokens} heads={[t.name, t.role, t.expires, t.actions]}>
          {tokens.data.tokens.map((token) => (
            <TableRow key={token.id}>
              <TableCell component="th" scope="row">
                {token.name}
              </TableCell>
              <TableCell>{[token.role, ...token.scopes].join(", ")}</TableCell>
              <TableCell>{token.expired ? t.expired : day(token.expires)}</TableCell>
              <TableCell align="right">
                <Sure label={t.revoke(token.name)} question={t.revokeQuestion(token.name)} then={() => revoking.mutate(token.id)} />
              </TableCell>
            </TableRow>
          ))}
        </Listed>
      )}
      {issuing.data && (
        <Alert severity="success" onClose={issuing.reset}>
          {t.issued(issuing.data.name)} <code style={{ overflowWrap: "anywhere" }}>{issuing.data.token}</code> <Copy text={issuing.data.token} />
        </Alert>
      )}
      <Sheet title={t.issue} submit={() => issuing.mutate()}>
        <Named label={t.name} value={name} change={setName} error={issuing.error} />
        <Choice label={t.role} value={role} choose={setRole} />
        <TextField
          label={t.days}
          type="number"
          required
          value={days}
          onChange={(event) => setDays(event.target.value)}
          error={!!ofField(issuing.error, "days")}
          helperText={ofField(issuing.error, "days") ?? t.daysRule}
          sx={{ width: 180 }}
        />
        <Button type="submit" variant="contained" loading={issuing.isPending}>
          {t.issue}
        </Button>
      </Sheet>
    </>
  );
}

function OwnPassword() {
  const queries = useQueryClient();
  const changing = useMutation({
    mutationFn: ([old = "", password = ""]: string[]) => api.ownPassword(old, password),
    onSuccess: () => {
      alert(t.passwordChanged);
      return queries.invalidateQueries({ queryKey: ["welcome"] });
    },
  });
  return (
    <>
      <Wrong error={ofNone(changing.error, ["old", "password"])} />
      <Form
        error={changing.error}
        title={t.ownPassword}
        button={t.changePassword}
        pending={changing.isPending}
        send={changing.mutate}
        secrets={[
          { label: t.oldPassword, option: "old", fill: "current-password" },
          { label: t.newPassword, option: "password", help: t.passwordRule, fill: "new-password" },
        ]}
      />
    </>
  );
}

function useAgain(what: string) {
  const queries = useQueryClient();
  return () => queries.invalidateQueries({ queryKey: [what] });
}

function Choice({ label, hidden, value, choose }: { label: string; hidden?: boolean; value: string; choose: (role: string) => void }) {
  const named = hidden ? { slotProps: { htmlInput: { "aria-label": label } }, variant: "standard" as const } : { label };
  return (
    <TextField select {...named} value={value} onChange={(event) => choose(event.target.value)} sx={{ width: 140 }}>
      {ROLES.map((one) => (
        <MenuItem key={one} value={one}>
          {one}
        </MenuItem>
      ))}
    </TextField>
  );
}

function Listed({ label, heads, children }: { label: string; heads: string[]; children: ReactNode }) {
  return (
    <TableContainer tabIndex={0} role="region" aria-label={label}>
      <Table>
        <TableHead>
          <TableRow>
            {heads.map((head) => (
              <TableCell key={head} align={head === t.actions ? "right" : "left"}>
                {head}
              </TableCell>
            ))}
          </TableRow>
        </TableHead>
        <TableBody>{children}</TableBody>
      </Table>
    </TableContainer>
  );
}

/** A card that is sent as a whole. */
function Sheet({ title, submit, children }: { title: string; submit: () => void; children: ReactNode }) {
  const sent = (event: FormEvent) => {
    event.preventDefault();
    submit();
  };
  return (
    <Card variant="outlined" component="section" aria-label={title}>
      <CardContent>
        <Typography variant="h2" gutterBottom>
          {title}
        </Typography>
        <Stack component="form" direction="row" sx={{ flexWrap: "wrap", gap: 2, mt: 1.5, alignItems: "flex-start" }} onSubmit={sent}>
          {children}
        </Stack>
      </CardContent>
    </Card>
  );
}

/** A name for the interface: what it may be made of is told before it is refused. */
function Named({ label, value, change, error }: { label: string; value: string; change: (typed: string) => void; error: Error | null }) {
  const wrong = ofField(error, "name");
  return <TextField label={label} value={value} required autoComplete="off" onChange={(event) => change(event.target.value)} error={!!wrong} helperText={wrong ?? t.nameRule} sx={{ width: 260 }} />;
}

interface Secret {
  label: string;
  /** What the interface calls it. */
  option: string;
  help?: string;
  fill: "current-password" | "new-password";
}

/** Passwords, and a button. */
function Form({ title, button, pending, send, secrets, wanted, error }: { title: string; button: string; pending: boolean; send: (typed: string[]) => void; secrets: Secret[]; wanted?: boolean; error: Error | null }) {
  const [typed, setTyped] = useState(secrets.map(() => ""));
  return (
    <Sheet title={title} submit={() => send(typed)}>
      {secrets.map(({ label, option, help, fill }, place) => (
        <Password key={label} label={label} focus={!!wanted && !place} fill={fill} help={help} wrong={ofField(error, option)} value={typed[place] ?? ""} change={(text) => setTyped(typed.with(place, text))} />
      ))}
      <Button type="submit" variant="contained" loading={pending}>
        {button}
      </Button>
    </Sheet>
  );
}

/** Nothing where the page may not write to the clipboard. */
function Copy({ text }: { text: string }) {
  const copying = useMutation({ mutationFn: () => navigator.clipboard.writeText(text) });
  if (!navigator.clipboard) return null;
  return (
    <Button size="small" color="inherit" onClick={() => copying.mutate()}>
      {copying.isSuccess ? t.copied : t.copy}
    </Button>
  );
}
