# The packages of poetry.lock as Python packages: { names; wheel = final: name: …; }. Each is a wheel; the lock gives
# its version, hash and dependencies.
{ pkgs, root }:
let
  inherit (pkgs) lib;

  # Where the lock has two versions of a package, the last one is for the newest Python.
  packages = lib.mapAttrs (_: lib.last) (
    lib.groupBy (package: package.name) (
      # The members have a folder as their source and no wheel.
      lib.filter (package: !package ? source) (lib.importTOML (root + "/poetry.lock")).package
    )
  );

  # The lock writes the names of dependencies as their authors do: "ruamel.yaml", "typing_extensions".
  normalize = name: lib.toLower (lib.replaceStrings [ "_" "." ] [ "-" "-" ] name);

  # "numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.whl" → its five parts; null for anything else.
  parse = builtins.match "([^-]+)-([^-]+)-([^-]+)-([^-]+)-([^-]+)\\.whl";

  # Whether a wheel with these tags runs on this version of Python.
  supportsPython =
    version: tag: abi:
    let
      oldest = builtins.match "cp3([0-9]+)" tag;
    in
    lib.elem "py3" (lib.splitString "." tag)
    || tag == "cp${lib.replaceStrings [ "." ] [ "" ] version}"
    || (abi == "abi3" && oldest != null && lib.versionAtLeast version "3.${lib.head oldest}");

  supportsPlatform =
    platform:
    lib.hasInfix "manylinux" platform && lib.hasInfix pkgs.stdenv.hostPlatform.parsed.cpu.name platform;

  # The package's wheel for this version of Python. As with pip, one with compiled code comes first:
  # soundfile's has libsndfile, and its wheel for any platform has not.
  choose =
    version: package:
    let
      parsed = map (file: { parts = parse file.file; } // file) package.files;
      fitting = lib.filter (
        { parts, ... }: parts != null && supportsPython version (lib.elemAt parts 2) (lib.elemAt parts 3)
      ) parsed;
      for = test: lib.filter ({ parts, ... }: test (lib.last parts)) fitting;
      found = for supportsPlatform ++ for (platform: platform == "any");
    in
    if found == [ ] then
      throw "poetry.lock has no wheel of ${package.name} for Python ${version} on ${pkgs.stdenv.hostPlatform.system}"
    else
      lib.head found;

  # The build of a wheel that contains compiled code.
  native = final: dependencies: {
    nativeBuildInputs = [ pkgs.autoPatchelfHook ];
    buildInputs = [
      pkgs.stdenv.cc.cc.lib
      pkgs.zlib
      final.python
    ];
    # Libraries of the wheels that this one needs: torch links to those of the nvidia packages.
    preFixup = ''
      addAutoPatchelfSearchPath ${toString (final.requiredPythonModules dependencies)}
    '';
    # Libraries that are opened by name at run time: a wheel's own, and those of the NVIDIA driver.
    appendRunpaths = [
      "$ORIGIN"
      "/run/opengl-driver/lib"
    ];
    # Libraries that no wheel has: the NVIDIA driver's, those for more than one machine (RDMA, MPI), and the other
    # versions of Python that nvidia-pytriton has a stub for.
    autoPatchelfIgnoreMissingDeps = [ "*" ];
    dontStrip = true;
  };
in
{
  names = lib.attrNames packages;

  # The package `name`; its dependencies are taken from the package set `final`.
  wheel =
    final: name:
    let
      package = packages.${name};
      file = choose final.python.pythonVersion package;
      part = lib.elemAt file.parts;
      dependencies = map (other: final.${normalize other}) (lib.attrNames (package.dependencies or { }));
    in
    final.buildPythonPackage (
      {
        pname = name;
        inherit (package) version;
        format = "wheel";
        src = pkgs.fetchPypi {
          pname = part 0;
          version = part 1;
          format = "wheel";
          dist = part 2;
          python = part 2;
          abi = part 3;
          platform = part 4;
          sha256 = lib.removePrefix "sha256:" file.hash;
        };
        inherit dependencies;
        # These two are nixpkgs' (python.nix).
        pythonRelaxDeps = [
          "packaging"
          "setuptools"
        ];
      }
      // lib.optionalAttrs (part 4 != "any") (native final dependencies)
    );
}
