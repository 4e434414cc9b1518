/** What commands take and how they say so. */

import type {
  JSONObject,
  ReadonlyPartialJSONObject,
  ReadonlyPartialJSONValue
} from '@lumino/coreutils';

export type Args = ReadonlyPartialJSONObject;

export function textArg(args: Args, name: string): string | null {
  const value: ReadonlyPartialJSONValue | undefined = args[name];
  return typeof value === 'string' && value !== '' ? value : null;
}

export function numberArg(args: Args, name: string): number | null {
  const value: ReadonlyPartialJSONValue | undefined = args[name];
  return typeof value === 'number' && value > 0 ? value : null;
}

/** The value, or an error with that sentence. */
export function orThrow<T>(value: T | null, otherwise: string): T {
  if (value === null) {
    throw new Error(otherwise);
  }
  return value;
}

export function schema(properties: JSONObject): JSONObject {
  return { type: 'object', properties, additionalProperties: true };
}

export function text(description: string): JSONObject {
  return { type: 'string', description };
}

export function number(description: string): JSONObject {
  return { type: 'number', exclusiveMinimum: 0, description };
}

export function flag(description: string): JSONObject {
  return { type: 'boolean', description };
}

export function leaseArg(): JSONObject {
  return text('Which lease; that of the current kernel');
}
