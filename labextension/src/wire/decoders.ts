/** Basic decoders, of which those of `validate.ts` are made: each turns `unknown` into a type or throws. */

import { WireError } from './errors';

/** Reads the value at `path`; throws `WireError` when it is not of type `T`. */
export type Decoder<T> = (value: unknown, path: string) => T;

export const text: Decoder<string> = (value, path) => {
  if (typeof value !== 'string') {
    throw new WireError(path, 'text', value);
  }
  return value;
};

export const number: Decoder<number> = (value, path) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new WireError(path, 'a number', value);
  }
  return value;
};

export const flag: Decoder<boolean> = (value, path) => {
  if (typeof value !== 'boolean') {
    throw new WireError(path, 'true or false', value);
  }
  return value;
};

export const anything: Decoder<unknown> = value => value;

export function nullable<T>(decode: Decoder<T>): Decoder<T | null> {
  return (value, path) =>
    value === null || value === undefined ? null : decode(value, path);
}

/** What older servers do not send yet: `otherwise` where it is absent or null. */
export function optional<T>(decode: Decoder<T>, otherwise: T): Decoder<T> {
  return (value, path) =>
    value === null || value === undefined ? otherwise : decode(value, path);
}

export function list<T>(decode: Decoder<T>): Decoder<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) {
      throw new WireError(path, 'a list', value);
    }
    return value.map((item, index) => decode(item, `${path}[${index}]`));
  };
}

export function oneOf<T extends string>(...words: T[]): Decoder<T> {
  return (value, path) => {
    const match = words.find(word => word === value);
    if (match === undefined) {
      throw new WireError(path, `one of ${words.join(', ')}`, value);
    }
    return match;
  };
}

export function table<T>(decode: Decoder<T>): Decoder<Record<string, T>> {
  return (value, path) =>
    Object.fromEntries(
      Object.entries(object(value, path)).map(([key, item]) => [
        key,
        decode(item, `${path}.${key}`)
      ])
    );
}

/** A decoder for an object, with one decoder for each key of `T`. */
export function shape<T>(fields: {
  [K in keyof T]-?: Decoder<T[K]>;
}): Decoder<T> {
  const keys = Object.keys(fields) as (keyof T & string)[];
  return (value, path) => {
    const source = object(value, path);
    const result: Partial<T> = {};
    for (const key of keys) {
      result[key] = fields[key](source[key], path ? `${path}.${key}` : key);
    }
    return result as T;
  };
}

function object(value: unknown, path: string): Record<string, unknown> {
  const isObject = typeof value === 'object' && value !== null;
  if (!isObject || Array.isArray(value)) {
    throw new WireError(path || 'answer', 'an object', value);
  }
  return value as Record<string, unknown>;
}
