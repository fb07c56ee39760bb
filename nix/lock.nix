# What nixpkgs lacks, or has in another version than this project can use, as poetry.lock has it:
# the version and the hash are read from there.
{ pkgs, root }:
let
  inherit (pkgs) lib;
  locked = lib.groupBy (package: package.name) (lib.importTOML (root + "/poetry.lock")).package;

  # "numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl" → its parts
  parse = file: builtins.match "([^-]+)-([^-]+)-([^-]+)-([^-]+)-([^-]+)\\.whl" file.file;
  fits =
    tag: file:
    let
      parts = parse file;
      platform = lib.last parts;
    in
    parts != null
    && lib.elem (lib.elemAt parts 2) [
      tag
      "py3"
    ]
    && (
      platform == "any"
      ||
        lib.hasInfix "manylinux" platform && lib.hasInfix pkgs.stdenv.hostPlatform.parsed.cpu.name platform
    );

  # The package as a wheel for this Python and platform, with these of the package set.
  wheelWith =
    names: final: name:
    let
      package = lib.head locked.${name};
      tag = "cp${lib.replaceStrings [ "." ] [ "" ] final.python.pythonVersion}";
      file = lib.findFirst (fits tag) (throw "poetry.lock has no wheel of ${name} for ${tag}") package.files;
      part = lib.elemAt (parse file);
    in
    final.buildPythonPackage {
      pname = name;
      inherit (package) version;
      format = "wheel";
      src = final.fetchPypi {
        pname = part 0;
        inherit (package) version;
        format = "wheel";
        dist = part 2;
        python = part 2;
        abi = part 3;
        platform = part 4;
        sha256 = lib.removePrefix "sha256:" file.hash;
      };
      dependencies = map (name: final.${name}) (names package);
      pythonRelaxDeps = true;
      nativeBuildInputs = [ pkgs.autoPatchelfHook ];
      buildInputs = [
        pkgs.stdenv.cc.cc.lib
        pkgs.zlib
        final.python
      ];
      dontStrip = true;
      # Triton comes with backends for other uses, whose libraries nobody needs here.
      autoPatchelfIgnoreMissingDeps = true;
    };
in
{
  # Without what it depends on.
  wheel = wheelWith (_: [ ]);

  # With what poetry.lock says that it depends on.
  wheelWithDependencies = wheelWith (package: lib.attrNames (package.dependencies or { }));
}
