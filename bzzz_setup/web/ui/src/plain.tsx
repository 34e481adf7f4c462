import type { ReactNode } from "react";

/** The form's package brings a reader of Markdown along, for descriptions that are drawn here otherwise. */
export const Markdown = ({ children }: { children: ReactNode }) => <>{children}</>;
