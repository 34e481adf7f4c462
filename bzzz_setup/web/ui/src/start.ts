import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, type Draft } from "./api";
import { go, useOutbox } from "./hooks";
import { t } from "./texts";

/** The step whose plan alone tells how the machines get through to each other. */
export const CONNECTIONS = 2;
export const isOfConnections = (command: string, only: number[]) => command === "plan" && only.length === 1 && only[0] === CONNECTIONS;
/** What a run is called. */
export const called = (command: string, only: number[]) => (isOfConnections(command, only) ? t.connections : (t.commands[command] ?? command));

/** Begin a run over the draft that this page shows, and go where it can be watched. */
export function useStart(command: string) {
  const queries = useQueryClient();
  const outbox = useOutbox();
  return useMutation({
    mutationFn: async (steps: number[]) => {
      await outbox.flush();
      const left = Object.keys(outbox.unsent.values).length;
      if (left) throw new Error(t.unsent(left));
      return api.start(command, steps, queries.getQueryData<Draft>(["draft"])?.revision);
    },
    onSuccess: ({ run }) => {
      void queries.invalidateQueries({ queryKey: ["runs"] });
      void queries.invalidateQueries({ queryKey: ["draft"] });
      go(`/run/${run}`);
    },
    onError: () => queries.invalidateQueries({ queryKey: ["draft"] }),
  });
}
