import { Alert, Box, Button, Container, Divider, Paper, Stack, TextField, Typography } from "@mui/material";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, type Welcome } from "./api";
import { Password } from "./password";
import { at } from "./place";
import { ofField, ofNone } from "./refused";
import { t } from "./texts";

// Told by the link's fragment, which no server is sent; it does not stay in the address.
const told = new URLSearchParams(location.hash.slice(1)).get("claim") ?? "";
if (told) history.replaceState(null, "", location.pathname);

/** The way in: the first account, or signing in. */
export default function Enter({ welcome: { claimed, provider, refused } }: { welcome: Welcome }) {
  const queries = useQueryClient();
  const [token, setToken] = useState(told);
  const [name, setName] = useState(claimed ? "" : "admin");
  const [password, setPassword] = useState("");
  const [byToken, setByToken] = useState(false);
  const entering = useMutation({
    mutationFn: () => (byToken ? api.signInBy(token.trim()) : claimed ? api.signIn(name, password) : api.claim(token, name, password)),
    onSuccess: () => queries.invalidateQueries(),
    onError: () => queries.invalidateQueries({ queryKey: ["welcome"] }),
  });
  const wrong = entering.error ? ofNone(entering.error, ["name", "password"])?.message : refused;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    entering.mutate();
  };
  return (
    <Container component="main" maxWidth="xs" sx={{ pt: 8 }}>
      <Paper sx={{ p: 3 }}>
        <Stack component="form" spacing={2} onSubmit={submit}>
          <Box component="img" src={at("/icon.svg")} alt="" sx={{ width: 48 }} />
          <Typography variant="h1">{claimed ? t.signIn : t.claimTitle}</Typography>
          {!claimed && <Typography>{t.claimText}</Typography>}
          {!claimed && !told && (
            <TextField label={t.claimToken} value={token} onChange={(event) => setToken(event.target.value)} required autoComplete="off" autoFocus />
          )}
          {byToken && (
            <TextField label={t.token} type="password" value={token} onChange={(event) => setToken(event.target.value)} required autoComplete="off" autoFocus helperText={t.tokenHelp} />
          )}
          {!byToken && (
            <>
              <TextField
                label={t.user}
                value={name}
                onChange={(event) => setName(event.target.value)}
                required
                autoComplete="username"
                autoFocus={claimed}
                error={!!ofField(entering.error, "name")}
                helperText={ofField(entering.error, "name")}
              />
              <Password
                label={t.password}
                value={password}
                change={setPassword}
                focus={!claimed && !!told}
                fill={claimed ? "current-password" : "new-password"}
                help={claimed ? undefined : t.passwordRule}
                wrong={ofField(entering.error, "password")}
              />
            </>
          )}
          {wrong && <Alert severity="error">{wrong}</Alert>}
          <Button type="submit" variant="contained" loading={entering.isPending}>
            {claimed ? t.signIn : t.claim}
          </Button>
          {claimed && <Divider>{t.or}</Divider>}
          {provider && (
            <Button href={api.provider} variant="outlined">
              {t.signInWith(provider)}
            </Button>
          )}
          {claimed && (
            <Button
              onClick={() => {
                setByToken(!byToken);
                setToken("");
                entering.reset();
              }}
            >
              {byToken ? t.signInByPassword : t.signInByToken}
            </Button>
          )}
        </Stack>
      </Paper>
    </Container>
  );
}
