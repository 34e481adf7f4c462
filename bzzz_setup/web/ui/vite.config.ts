import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { VitePWA } from "vite-plugin-pwa";

export default defineConfig({
  // Relative to where the wizard is, which the server says: at the top, or under /setup on a coordinator.
  base: "./",
  plugins: [
    react(),
    VitePWA({
      registerType: "autoUpdate",
      injectRegister: false,
      manifest: {
        name: "BZZZ cluster setup",
        short_name: "BZZZ",
        description: "Set up and watch a BZZZ cluster",
        theme_color: "#0b57d0",
        background_color: "#ffffff",
        display: "standalone",
        start_url: ".",
        scope: ".",
        icons: [{ src: "icon.svg", sizes: "any", type: "image/svg+xml", purpose: "any" }],
      },
      // The shell only: what the interface answers is never kept. Without a connection every address shows it, and it says so.
      workbox: {
        globPatterns: ["assets/*.{js,css}", "icon.svg", "index.html"],
        manifestTransforms: [(entries) => ({ manifest: entries.map((entry) => (entry.url === "index.html" ? { ...entry, url: "shell" } : entry)) })],
        navigateFallback: null,
        runtimeCaching: [
          {
            urlPattern: ({ request, url }) => request.mode === "navigate" && !url.pathname.includes("/api/v1/"),
            handler: "NetworkOnly",
            options: { precacheFallback: { fallbackURL: "shell" } },
          },
        ],
      },
    }),
  ],
  // What the form's package asks for, and the page has no use for.
  resolve: {
    alias: {
      "@rjsf/validator-ajv8": new URL("src/unjudged.ts", import.meta.url).pathname,
      "fast-uri": new URL("src/unreferenced.ts", import.meta.url).pathname,
      "markdown-to-jsx/react": new URL("src/plain.tsx", import.meta.url).pathname,
    },
  },
  build: { target: "es2022", chunkSizeWarningLimit: 700 },
});
