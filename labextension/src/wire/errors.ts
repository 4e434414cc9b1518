import type { IError } from './types';

/** The server refused or failed; `code` is the name of its error class. */
export class AIStackError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly facts: Record<string, unknown> = {},
    readonly status = 0
  ) {
    super(message);
    this.name = 'AIStackError';
  }

  static from(body: IError, status: number): AIStackError {
    return new AIStackError(body.code, body.message, body.facts, status);
  }
}

/** An answer of the server does not have the agreed form; `path` names the place. */
export class WireError extends Error {
  constructor(
    readonly path: string,
    expected: string,
    value: unknown
  ) {
    super(
      'This page and the server are of different versions of jupyter_aistack: reload the page, or restart ' +
        `the server if it is the older one (${path}: expected ${expected}, got ${describe(value)})`
    );
    this.name = 'WireError';
  }
}

/** A sentence for people, whatever was thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) {
    return error.message;
  }
  return String(error);
}

function describe(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
