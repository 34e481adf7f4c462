import { Button, TextField } from "@mui/material";
import { useState } from "react";
import { t } from "./texts";

interface Asked {
  label: string;
  value: string;
  change: (typed: string) => void;
  /** What a password manager is to fill in. */
  fill: "current-password" | "new-password";
  help?: string | undefined;
  /** Why it was refused. */
  wrong?: string | undefined;
  focus?: boolean;
}

/** A password, which may be looked at while it is typed. */
export function Password({ label, value, change, fill, help, wrong, focus }: Asked) {
  const [shown, setShown] = useState(false);
  return (
    <TextField
      label={label}
      type={shown ? "text" : "password"}
      value={value}
      onChange={(event) => change(event.target.value)}
      required
      autoFocus={!!focus}
      autoComplete={fill}
      error={!!wrong}
      helperText={wrong ?? help}
      slotProps={{
        htmlInput: { spellCheck: false, autoCapitalize: "none" },
        input: {
          endAdornment: (
            <Button size="small" aria-pressed={shown} aria-label={t.showIt} onClick={() => setShown(!shown)}>
              {shown ? t.hide : t.show}
            </Button>
          ),
        },
      }}
    />
  );
}
