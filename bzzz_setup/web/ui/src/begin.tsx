import { Alert, Button, Card, CardContent, Checkbox, FormControlLabel, MenuItem, Stack, Table, TableBody, TableCell, TableContainer, TableHead, TableRow, TextField, Typography } from "@mui/material";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, type FoundMachines } from "./api";
import { t } from "./texts";
import { Wrong } from "./wrong";

/** Find machines, compare their host keys, take them. `first`: they are the cluster's first ones. */
export function Begin({ first }: { first: boolean }) {
  const queries = useQueryClient();
  const offered = useQuery({ queryKey: ["keys"], queryFn: api.keys });
  const [nodes, setNodes] = useState("");
  const [announced, setAnnounced] = useState(false);
  const [port, setPort] = useState("22");
  const [cluster, setCluster] = useState("bzzz");
  const [user, setUser] = useState("");
  const [key, setKey] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const finding = useMutation({ mutationFn: () => api.find(nodes, announced, Number(port) || 0) });
  const taking = useMutation({
    mutationFn: (found: FoundMachines) => {
      const coordinators = found.machines.length >= 3 ? 3 : 1;
      const machines = found.machines.map(({ name, address, port: own }, place) => ({
        name,
        address,
        port: own,
        groups: first && place < coordinators ? ["coordinators", "workers"] : ["workers"],
      }));
      return api.take({ machines, known_hosts: found.known_hosts, ...(first ? { cluster, user, key: key || null, passphrase: passphrase || null } : {}) });
    },
    onSuccess: () => {
      finding.reset();
      setNodes("");
      return queries.invalidateQueries();
    },
  });
  const look = (event: FormEvent) => {
    event.preventDefault();
    taking.reset();
    finding.mutate();
  };
  const found = finding.data;
  const locked = offered.data?.keys.find((one) => one.fingerprint === key && one.locked && !one.agent);
  return (
    <Card variant="outlined" component="section" aria-labelledby="begin">
      <CardContent>
        <Typography variant="h2" id="begin" gutterBottom>
          {first ? t.firstMachines : t.moreMachines}
        </Typography>
        <Stack component="form" spacing={2} sx={{ mt: 1.5 }} onSubmit={look}>
          <TextField label={t.whichMachines} value={nodes} onChange={(event) => setNodes(event.target.value)} placeholder="10.0.0.10-20, gpu1, 10.0.1.0/28" helperText={t.whichHelp} fullWidth />
          <Stack direction="row" sx={{ flexWrap: "wrap", gap: 2 }}>
            <TextField label={t.sshPort} value={port} onChange={(event) => setPort(event.target.value)} sx={{ width: 110 }} />
            {first && (
              <>
                <TextField label={t.clusterName} value={cluster} onChange={(event) => setCluster(event.target.value)} sx={{ width: 160 }} />
                <TextField label={t.loginUser} value={user} placeholder={offered.data?.user} onChange={(event) => setUser(event.target.value)} sx={{ width: 160 }} />
                <TextField select label={t.loginKey} value={key} onChange={(event) => setKey(event.target.value)} sx={{ minWidth: 260 }} slotProps={{ select: { displayEmpty: true }, inputLabel: { shrink: true } }}>
                  <MenuItem value="">{t.sshsOwn}</MenuItem>
                  {offered.data?.keys.map((one) => (
                    <MenuItem key={one.fingerprint} value={one.fingerprint}>
                      {one.kind} {one.comment || one.name}
                    </MenuItem>
                  ))}
                </TextField>
                {locked && <TextField label={t.passphrase} type="password" autoComplete="off" value={passphrase} onChange={(event) => setPassphrase(event.target.value)} />}
              </>
            )}
            <FormControlLabel control={<Checkbox checked={announced} onChange={(event) => setAnnounced(event.target.checked)} />} label={t.announced} />
          </Stack>
          <Button type="submit" variant={found ? "outlined" : "contained"} loading={finding.isPending} sx={{ alignSelf: "flex-start" }}>
            {t.find}
          </Button>
        </Stack>
        <Wrong error={finding.error ?? taking.error} />
        {found && !found.machines.length && <Alert severity="info">{t.noNewMachines}</Alert>}
        {found && found.machines.length > 0 && (
          <Stack spacing={1} sx={{ mt: 2 }}>
            {found.warnings.map((warning) => (
              <Alert key={warning.message} severity="warning">
                {warning.message} {warning.remedy}
              </Alert>
            ))}
            <Typography>{t.compareKeys}</Typography>
            <TableContainer tabIndex={0} role="region" aria-label={t.hostKeys}>
              <Table>
                <TableHead>
                  <TableRow>
                    {[t.name, t.address, t.hostKeys].map((head) => (
                      <TableCell key={head}>{head}</TableCell>
                    ))}
                  </TableRow>
                </TableHead>
                <TableBody>
                  {found.machines.map((machine) => (
                    <TableRow key={machine.name}>
                      <TableCell component="th" scope="row">
                        {machine.name}
                      </TableCell>
                      <TableCell>{machine.address}</TableCell>
                      <TableCell>
                        {machine.keys.map((one) => (
                          <div key={one.fingerprint}>
                            {one.kind} <code>{one.fingerprint}</code>
                          </div>
                        ))}
                      </TableCell>
                    </TableRow>
                  ))}
                </TableBody>
              </Table>
            </TableContainer>
            <Button variant="contained" loading={taking.isPending} onClick={() => taking.mutate(found)} sx={{ alignSelf: "flex-start" }}>
              {t.take(found.machines.length)}
            </Button>
          </Stack>
        )}
      </CardContent>
    </Card>
  );
}
