/** Holds the folders of the sources to their order. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import * as ts from 'typescript';

const ROOT = resolve(__dirname, '..');

/** What each folder (or file at the root) may import beside itself, lowest first. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  wire: [],
  text: ['wire'],
  tokens: ['wire', 'text'],
  app: ['tokens'],
  api: ['wire', 'text', 'tokens', 'app'],
  commands: ['wire', 'text', 'tokens'],
  request: ['wire', 'text', 'tokens'],
  panel: ['wire', 'text', 'tokens', 'app', 'commands'],
  notifications: ['wire', 'text', 'tokens', 'app'],
  status: ['wire', 'text', 'tokens'],
  index: [
    'wire',
    'tokens',
    'app',
    'api',
    'commands',
    'request',
    'panel',
    'notifications',
    'status'
  ]
};

const ORDER = Object.keys(MAY_IMPORT);

function sourceFiles(): string[] {
  return readdirSync(ROOT, { recursive: true, encoding: 'utf8' })
    .filter(file => /\.tsx?$/.test(file))
    .filter(file => !file.startsWith('__tests__'));
}

/** The modules of ours that a file imports: for values or types, at once or lazily. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return ts
    .preProcessFile(text, true, true)
    .importedFiles.map(({ fileName }) => fileName)
    .filter(name => name.startsWith('.') && !name.endsWith('.svg'))
    .map(name => relative(ROOT, join(ROOT, dirname(file), name)));
}

function moduleOf(file: string): string {
  return file.replace(/(\.d)?\.tsx?$/, '');
}

function folderOf(module: string): string {
  return module.split('/')[0];
}

const graph = new Map(
  sourceFiles().map(file => [moduleOf(file), importsOf(file)])
);

/** The modules on a path of imports that comes back to where it began; empty when there is none. */
function circle(): string[] {
  const done = new Set<string>();
  const visit = (module: string, path: string[]): string[] => {
    if (path.includes(module)) {
      return [...path.slice(path.indexOf(module)), module];
    }
    if (done.has(module)) {
      return [];
    }
    for (const next of graph.get(module) ?? []) {
      const round = visit(next, [...path, module]);
      if (round.length > 0) {
        return round;
      }
    }
    done.add(module);
    return [];
  };
  for (const module of graph.keys()) {
    const round = visit(module, []);
    if (round.length > 0) {
      return round;
    }
  }
  return [];
}

describe('layout', () => {
  it('has a place in the order for every folder', () => {
    const folders = new Set([...graph.keys()].map(folderOf));
    expect([...folders].sort()).toEqual([...ORDER].sort());
  });

  it('finds every module that is imported', () => {
    const unknown = [...graph.values()].flat().filter(name => !graph.has(name));
    expect(unknown).toEqual([]);
  });

  it('lets folders import only what stands below them', () => {
    const forbidden = [...graph].flatMap(([module, imported]) => {
      const folder = folderOf(module);
      const allowed = [folder, ...(MAY_IMPORT[folder] ?? [])];
      return imported
        .filter(name => !allowed.includes(folderOf(name)))
        .map(name => `${module} imports ${name}`);
    });
    expect(forbidden).toEqual([]);
  });

  it('is itself in order', () => {
    const upward = ORDER.flatMap((folder, position) =>
      MAY_IMPORT[folder].filter(name => ORDER.indexOf(name) >= position)
    );
    expect(upward).toEqual([]);
  });

  it('has no circles', () => {
    expect(circle()).toEqual([]);
  });

  it('has no file that is too long to be read, but what is generated', () => {
    const generated = 'wire/types.ts';
    const long = sourceFiles().filter(
      file => readFileSync(join(ROOT, file), 'utf8').split('\n').length > 400
    );
    expect(long.filter(file => file !== generated)).toEqual([]);
  });
});
