import js from '@eslint/js';
import jupyter from '@jupyter/eslint-plugin';
import prettier from 'eslint-plugin-prettier/recommended';
import globals from 'globals';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['node_modules', 'lib', 'coverage', 'style', '*.mjs', '*.mts'] },
  {
    files: ['**/*.{ts,tsx}'],
    extends: [js.configs.recommended, ...tseslint.configs.recommended],
    languageOptions: {
      globals: globals.browser,
      parserOptions: {
        project: 'tsconfig.test.json',
        tsconfigRootDir: import.meta.dirname
      }
    },
    rules: {
      '@typescript-eslint/explicit-function-return-type': [
        'error',
        { allowExpressions: true }
      ],
      '@typescript-eslint/naming-convention': [
        'error',
        {
          selector: 'interface',
          format: ['PascalCase'],
          custom: { regex: '^I[A-Z]', match: true }
        }
      ],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      // A token, and a class with its options, share their name on purpose.
      '@typescript-eslint/no-namespace': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { args: 'none' }],
      complexity: ['error', 12],
      curly: ['error', 'all'],
      eqeqeq: 'error',
      'max-lines': ['error', 400],
      'max-statements-per-line': ['error', { max: 1 }],
      'no-multi-assign': 'error',
      'no-nested-ternary': 'error',
      'prefer-arrow-callback': 'error'
    }
  },
  { plugins: { jupyter } },
  ...jupyter.configs.recommended,
  {
    files: ['src/index.ts'],
    rules: {
      // These make up what is on the page from the start; the dialog is loaded when it is needed.
      'jupyter/prefer-lazy-imports': [
        'warn',
        {
          ignoreImports: [
            './api/manager',
            './api/restapi',
            './commands/lease',
            './commands/panelactions',
            './notifications/conditiontoasts',
            './notifications/newstoasts',
            './notifications/suspendtoasts',
            './notifications/suspendwatcher',
            './panel/widget',
            './status/indicator',
            './status/running'
          ]
        }
      ]
    }
  },
  {
    files: ['src/**'],
    ignores: ['src/__tests__/**'],
    rules: { 'max-lines-per-function': ['error', 70] }
  },
  {
    files: ['src/__tests__/**'],
    rules: { 'jupyter/no-untranslated-string': 'off', 'max-lines': 'off' }
  },
  { files: ['**/*.{ts,tsx}'], ...prettier }
);
