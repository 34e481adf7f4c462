import { Button, Dialog, DialogActions, DialogContent, DialogContentText } from "@mui/material";
import { useId, useState } from "react";
import { t } from "./texts";

type Props = { label: string; question: string; then: () => void; color?: "error" | "inherit" };

/** A button for what cannot be taken back: it asks first. */
export function Sure({ label, question, then, color = "error" }: Props) {
  const [asking, setAsking] = useState(false);
  const id = useId();
  const stop = () => setAsking(false);
  return (
    <>
      <Button color={color} onClick={() => setAsking(true)}>
        {label}
      </Button>
      <Dialog open={asking} onClose={stop} role="alertdialog" aria-labelledby={id}>
        <DialogContent>
          <DialogContentText id={id} color="textPrimary">
            {question}
          </DialogContentText>
        </DialogContent>
        <DialogActions>
          <Button autoFocus onClick={stop}>
            {t.keep}
          </Button>
          <Button color="error" onClick={() => (stop(), then())}>
            {label}
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}
