import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, type Draft } from "./api";
import { go } from "./hooks";

/** Begin a run over the draft that this page shows, and go where it can be watched. */
export function useStart(command: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (steps: number[]) => api.start(command, steps, queries.getQueryData<Draft>(["draft"])?.revision),
    onSuccess: ({ run }) => {
      void queries.invalidateQueries({ queryKey: ["runs"] });
      void queries.invalidateQueries({ queryKey: ["draft"] });
      go(`/run/${run}`);
    },
    onError: () => queries.invalidateQueries({ queryKey: ["draft"] }),
  });
}
