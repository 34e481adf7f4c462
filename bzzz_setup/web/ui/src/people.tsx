import { Button, Card, CardContent, MenuItem, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api } from "./api";
import { t } from "./texts";
import { Wrong } from "./wrong";

/** Who may use the wizard: an administrator's page. */
export default function People() {
  const queries = useQueryClient();
  const users = useQuery({ queryKey: ["users"], queryFn: api.users });
  const [name, setName] = useState("");
  const [role, setRole] = useState("operator");
  const [password, setPassword] = useState("");
  const onSuccess = () => queries.invalidateQueries({ queryKey: ["users"] });
  const adding = useMutation({
    mutationFn: () => api.addUser(name, role, password),
    onSuccess: () => {
      setName("");
      setPassword("");
      return onSuccess();
    },
  });
  const removing = useMutation({ mutationFn: api.removeUser, onSuccess });
  const unlocking = useMutation({ mutationFn: api.unlockUser, onSuccess });
  const add = (event: FormEvent) => {
    event.preventDefault();
    adding.mutate();
  };
  const error = users.error ?? adding.error ?? removing.error ?? unlocking.error;
  return (
    <Stack spacing={2}>
      <Typography variant="h1">{t.people}</Typography>
      <Wrong error={error} />
      <TableContainer tabIndex={0} role="region" aria-label={t.people}>
        <Table>
          <TableHead>
            <TableRow>
              {[t.user, t.role, t.since, t.actions].map((head) => (
                <TableCell key={head} align={head === t.actions ? "right" : "left"}>
                  {head}
                </TableCell>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {users.data?.users.map((user) => (
              <TableRow key={user.name}>
                <TableCell component="th" scope="row">
                  {user.name}
                </TableCell>
                <TableCell>{user.role}</TableCell>
                <TableCell>{new Date(user.created).toLocaleDateString()}</TableCell>
                <TableCell align="right">
                  {user.locked && <Button onClick={() => unlocking.mutate(user.name)}>{t.unlock(user.name)}</Button>}
                  <Button color="error" onClick={() => confirm(t.removeQuestion(user.name)) && removing.mutate(user.name)}>
                    {t.remove(user.name)}
                  </Button>
                </TableCell>
              </TableRow>
            ))}
          </TableBody>
        </Table>
      </TableContainer>
      <Card variant="outlined" component="section" aria-labelledby="add">
        <CardContent>
          <Typography variant="h2" id="add" gutterBottom>
            {t.addUser}
          </Typography>
          <Stack component="form" direction="row" sx={{ flexWrap: "wrap", gap: 2, mt: 1.5, alignItems: "flex-start" }} onSubmit={add}>
            <TextField label={t.user} value={name} required autoComplete="off" onChange={(event) => setName(event.target.value)} />
            <TextField select label={t.role} value={role} onChange={(event) => setRole(event.target.value)} sx={{ width: 140 }}>
              {["viewer", "operator", "admin"].map((one) => (
                <MenuItem key={one} value={one}>
                  {one}
                </MenuItem>
              ))}
            </TextField>
            <TextField label={t.password} type="password" required autoComplete="new-password" value={password} helperText={t.passwordRule} onChange={(event) => setPassword(event.target.value)} />
            <Button type="submit" variant="contained" loading={adding.isPending}>
              {t.addUser}
            </Button>
          </Stack>
        </CardContent>
      </Card>
    </Stack>
  );
}
