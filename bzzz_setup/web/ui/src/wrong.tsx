import { Alert } from "@mui/material";
import { Refused } from "./api";

/** Why something was refused, with its remedies. */
export function Wrong({ error }: { error: Error | null }) {
  if (!error) return null;
  const problems = error instanceof Refused ? error.problems : [];
  return (
    <Alert severity="error" sx={{ mt: 1 }}>
      {problems.length ? problems.map((problem) => <div key={problem.message}>{`${problem.message.replace(/\.?$/, ".")} ${problem.remedy}`}</div>) : error.message}
    </Alert>
  );
}
