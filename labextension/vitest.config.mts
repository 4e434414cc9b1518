import { readFileSync } from 'node:fs';

import { defineConfig } from 'vitest/config';

// The builder hands an svg over as text; so must the tests.
const svgAsText = {
  name: 'svg-as-text',
  enforce: 'pre' as const,
  load(id: string): string | null {
    const file = id.split('?')[0];
    return file.endsWith('.svg')
      ? `export default ${JSON.stringify(readFileSync(file, 'utf8'))};`
      : null;
  }
};

export default defineConfig({
  plugins: [svgAsText],
  esbuild: { jsx: 'transform' },
  test: {
    environment: 'jsdom',
    globals: true,
    css: false,
    include: ['src/**/*.spec.ts', 'src/**/*.spec.tsx'],
    setupFiles: ['./vitest.setup.ts'],
    server: {
      deps: {
        inline: [
          /@jupyterlab\//,
          /@lumino\//,
          /@jupyter\//,
          /@microsoft\//,
          /@rjsf\//
        ]
      }
    }
  }
});
