import { Alert, CircularProgress } from "@mui/material";
import { Component, lazy, type ReactNode, Suspense } from "react";
import type { Me } from "./api";
import { usePath, useWelcome } from "./hooks";
import { t } from "./texts";

// What is lazy is also drawn piece by piece, between which the browser gets to do something else.
const Enter = lazy(() => import("./enter"));
const Frame = lazy(() => import("./frame"));
const StepPage = lazy(() => import("./step"));
const Review = lazy(() => import("./review"));
const RunPage = lazy(() => import("./run"));
const People = lazy(() => import("./people"));
const Cluster = lazy(() => import("./cluster"));
const Cost = lazy(() => import("./cost"));

export function App() {
  const welcome = useWelcome();
  const path = usePath();
  if (!welcome.data && welcome.failureCount) return <Alert severity="warning">{t.disconnected}</Alert>;
  const waiting = <CircularProgress aria-label={t.loading} sx={{ m: 4 }} />;
  if (!welcome.data) return waiting;
  return (
    <Suspense fallback={waiting}>
      {welcome.data.me ? (
        <Frame me={welcome.data.me}>
          <Suspense fallback={waiting}>
            <Fence key={path}>
              <Page path={path} me={welcome.data.me} />
            </Fence>
          </Suspense>
        </Frame>
      ) : (
        <Enter welcome={welcome.data} />
      )}
    </Suspense>
  );
}

function Page({ path, me }: { path: string; me: Me }) {
  const [, kind, which = ""] = path.split("/");
  if (kind === "step") return <StepPage key={which} number={Number(which)} />;
  if (kind === "review") return <Review />;
  if (kind === "run") return <RunPage key={which} name={which} />;
  if (kind === "people") return <People me={me} />;
  if (kind === "cluster") return <Cluster />;
  if (kind === "cost") return <Cost />;
  return <StepPage key="1" number={1} />;
}

/** A part of the page that cannot be shown takes nothing else with it. */
class Fence extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null as Error | null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    return this.state.error ? (
      <Alert severity="error">
        {t.error}: {this.state.error.message}
      </Alert>
    ) : (
      this.props.children
    );
  }
}
