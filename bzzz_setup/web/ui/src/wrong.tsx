import { Alert } from "@mui/material";
import { type Problem, Refused } from "./api";
import { Field } from "./field";
import { useSchema } from "./hooks";
import { whole } from "./refused";
import { t } from "./texts";

/** What is wrong, the way to its field where there is one, and the remedy. */
export function Told({ problem }: { problem: Problem }) {
  const steps = useSchema().data?.steps ?? [];
  const step = steps.find(({ roles }) => roles.some((role) => problem.option in role.schema.properties));
  return (
    <>
      {step && (
        <>
          <Field option={problem.option} step={step.number} />
          {problem.node && ` (${problem.node})`}:{" "}
        </>
      )}
      {whole(problem.message)} {whole(problem.remedy)}
    </>
  );
}

/** What is wrong with the declaration, one below the other. */
export function Problems({ problems }: { problems: Problem[] }) {
  return problems.map((problem) => (
    <Alert key={`${problem.option} ${problem.node ?? ""} ${problem.message}`} severity={problem.severity ?? "error"} sx={{ mb: 1 }}>
      <Told problem={problem} />
    </Alert>
  ));
}

/** Why something was refused, with its remedies. */
export function Wrong({ error }: { error: Error | null }) {
  if (!error) return null;
  const problems = error instanceof Refused ? error.problems : [];
  return (
    <Alert severity="error" sx={{ mt: 1 }}>
      {problems.length ? problems.map((problem) => <div key={`${problem.option} ${problem.message}`}><Told problem={problem} /></div>) : `${t.error}: ${error.message}`}
    </Alert>
  );
}
