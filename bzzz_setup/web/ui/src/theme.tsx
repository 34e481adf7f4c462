import { createTheme } from "@mui/material";

/** A calm, dense console. */
export const theme = createTheme({
  cssVariables: { colorSchemeSelector: "data-scheme" },
  colorSchemes: {
    light: { palette: { contrastThreshold: 4.5, primary: { main: "#0b57d0" }, background: { default: "#f6f8fb" }, success: { main: "#1b6e35" }, warning: { main: "#8a5300" } } },
    dark: { palette: { contrastThreshold: 4.5, primary: { main: "#9ec2ff" }, background: { default: "#0f1318", paper: "#171c23" }, success: { main: "#7fd197" }, warning: { main: "#ffc46b" } } },
  },
  typography: {
    fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    fontSize: 13,
    h1: { fontSize: "1.5rem", fontWeight: 600 },
    h2: { fontSize: "1.1rem", fontWeight: 600 },
    h3: { fontSize: "1rem", fontWeight: 600 },
    button: { textTransform: "none" },
  },
  shape: { borderRadius: 6 },
  components: {
    MuiTextField: { defaultProps: { size: "small", slotProps: { inputLabel: { shrink: true } } } },
    MuiFormControl: { defaultProps: { size: "small" } },
    MuiButton: { defaultProps: { size: "small", disableElevation: true } },
    MuiTable: { defaultProps: { size: "small" } },
    MuiPaper: { defaultProps: { variant: "outlined" } },
    // In line with the fields' edges, as all other words.
    MuiFormHelperText: { styleOverrides: { root: { margin: 0 } } },
    MuiButtonBase: { defaultProps: { disableRipple: true } },
  },
});
