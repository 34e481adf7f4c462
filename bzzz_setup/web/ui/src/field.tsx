import { Link } from "@mui/material";
import { go } from "./hooks";
import { at } from "./place";

/** The way to an option's field, on whichever step it is. */
export function Field({ option, step }: { option: string; step: number }) {
  const there = `/step/${step}#${option}`;
  return (
    <Link
      href={at(there)}
      onClick={(event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        const field = document.getElementById(`root_${option}`);
        if (field) field.focus();
        else go(there);
      }}
    >
      {option}
    </Link>
  );
}
