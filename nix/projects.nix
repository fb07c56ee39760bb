# Every pyproject.toml of this repository, loaded by pyproject.nix: { root; members = { gemma-wire = …; … }; }.
# The members' folders are those of the root's Poetry table: { folders = { gemma-wire = "packages/wire"; … }; }.
{
  lib,
  pyproject-nix,
  root,
}:
let
  load = folder: pyproject-nix.lib.project.loadPyproject { projectRoot = folder; };
  poetry = (lib.importTOML (root + "/pyproject.toml")).tool.poetry;
  grouped = lib.foldl' (all: group: all // (group.dependencies or { })) { } (lib.attrValues poetry.group);
  folders = lib.mapAttrs (_: member: member.path) (
    lib.filterAttrs (_: member: member ? path) (poetry.dependencies // grouped)
  );
in
{
  inherit folders;
  root = load root;
  members = lib.mapAttrs (_: folder: load (root + "/${folder}")) folders;
}
