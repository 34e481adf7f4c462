import createCache from "@emotion/cache";
import { CacheProvider } from "@emotion/react";
import { CssBaseline, ThemeProvider } from "@mui/material";
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { startTransition, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Refused } from "./api";
import { App } from "./app";
import { at } from "./place";
import { theme } from "./theme";

// The page's policy lets in the styles that carry this answer's nonce, and no others.
const nonce = document.querySelector<HTMLMetaElement>("meta[property=csp-nonce]")?.nonce;
const styles = createCache({ key: "bzzz", ...(nonce ? { nonce } : {}) });

// A session that has ended shows itself at any question; the way in is shown then.
const onError = (error: Error) => {
  if (error instanceof Refused && error.status === 401) void queries.invalidateQueries({ queryKey: ["welcome"] });
};

const queries: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError }),
  mutationCache: new MutationCache({ onError }),
  defaultOptions: {
    // The wizard may be on this very host: whether there is a network says nothing.
    mutations: { networkMode: "always" },
    queries: {
      networkMode: "always",
      staleTime: 5_000,
      retry: (count, error) => !(error instanceof Refused) && count < 3,
      refetchOnWindowFocus: true,
    },
  },
});

const root = createRoot(document.getElementById("root")!);
startTransition(() =>
  root.render(
    <StrictMode>
      <CacheProvider value={styles}>
        <ThemeProvider theme={theme}>
          <CssBaseline enableColorScheme />
          <QueryClientProvider client={queries}>
            <App />
          </QueryClientProvider>
        </ThemeProvider>
      </CacheProvider>
    </StrictMode>,
  ),
);

if ("serviceWorker" in navigator && import.meta.env.PROD) void navigator.serviceWorker.register(at("/sw.js")).catch(() => undefined);
